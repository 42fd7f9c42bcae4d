"""What the tensors of a forward pass are, and where their samples: followed from call to call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pynas._errors import UserError
from pynas.stats._copies import copies_of, meet_in_order
from pynas.stats._coupling import TAINTS, coupled, kept
from pynas.stats._derivation import Derivation
from pynas.stats._functions import name_of
from pynas.stats._layout import DATA, Layout, Unknown, Where
from pynas.stats._marks import Marks
from pynas.stats._mixing import NeedsScoutError, asks_about, outputs_of, rearranges, weights_of
from pynas.stats._propagation import propagate
from pynas.stats._scout import Log, OtherPathError, Scouted, expected, settings_of

# These may take some rows of the batch, or take them in another order.
TAKES = {
    "getitem", "narrow", "index_select", "gather", "take_along_dim", "split", "chunk", "tensor_split",
    "unbind",
}  # fmt: skip
ROWS = "rows are taken out of the batch in layer {layer!r}, and which sample each is of cannot be told"


class IrregularError(Exception):
    """A call that its rule does not cover: a bias that depends on samples, for one."""


class Following:
    """Every tensor of a pass is samples, computed from parameters alone, or a constant.

    Args:
        parameters: All parameters of the model, by name.
        batch: Number of samples B.
        scouted: What small passes have found out about this one, if they have run.
        remembered: They were passes of another model of this structure; calls are compared with theirs.

    Attributes:
        log: Where to note what each call puts out, in a pass that only measures.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], batch: int, scouted: Scouted | None, remembered: bool
    ) -> None:
        super().__init__()
        self.batch = batch
        self.measured = None if scouted is None else scouted.calls
        self.products = frozenset() if scouted is None else scouted.products
        self.remembered = remembered
        self.log: Log | None = None
        self.marks = Marks()
        self.parameters = parameters
        self.own = {id(p): n for n, p in parameters.items()}
        self._by_id = {id(p): p for p in parameters.values()}
        self.sorts_samples: list[weakref.ref[Tensor]] = []  # batch sizes of packed sequences in such an order
        self._calls = 0
        self._rearranged: dict[int, weakref.ref[Tensor]] = {}

    def called(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor],
        result: Any,
    ) -> None:
        """Note what a call has put out."""
        outputs = outputs_of(func, args, result)
        if not outputs:
            return
        if self.log is not None:
            self.log.add(func, args, kwargs, outputs)
            return
        simple = self.measured is None and self.marks.plain
        if simple and self._propagated(func, args, kwargs, tensors, outputs):
            return
        samples = [(t, self.marks.where(t)) for t in tensors if self.is_sample(t)]
        sources: frozenset[int] = frozenset()
        if not samples:
            sources = sources.union(*(self.comes_from(t) for t in tensors))
        places = self._places(func, outputs)
        if self.remembered and self.measured is not None:
            known = expected(self.measured[self._calls].settings, self.batch)
            if known != settings_of(args, kwargs):
                raise OtherPathError(self.measured[self._calls].layer)
        copies = self._copied(tensors, samples)
        assumed = bool(samples) and self._assumes(func, args, kwargs, samples)
        moved = (
            bool(sources) and len(sources) == 1 and rearranges(func, args) and self._is_rearranged(tensors)
        )
        for i, y in enumerate(outputs):
            if id(y) in self.own:
                continue
            where = places[i] if places is not None else None
            if samples:
                if y.requires_grad and self._takes_rows(func, i, where):
                    known = propagate(func, args, kwargs, samples, y)
                    if not isinstance(known, Layout):
                        assert self.measured is not None
                        raise OtherPathError(self.measured[self._calls].layer, ROWS)
                if places is None or assumed or isinstance(where, Unknown):
                    known = propagate(func, args, kwargs, samples, y)
                    # Of copies in an assumed order a measurement says nothing: all of them are equal.
                    where = known if places is None or assumed or isinstance(known, Layout) else where
                elif where is None and asks_about(func):
                    continue  # no values of samples: zeros of their dtype, for one
                if isinstance(where, Layout):
                    where = coupled(self, func, args, kwargs, tensors, samples, where)
                elif isinstance(where, Unknown) and self.measured is not None:
                    where = kept(samples, where)
                inner = self.marks.found(y)  # of a call inside this one, which may have said more
                if inner is not None and inner[1] in TAINTS and not any(y is t for t in tensors):
                    where = inner[1]
                if any(y is t for t in tensors) and not any(y is t for t, _ in samples):
                    self.marks.written(y)
                if copies is not None and where is None and y.requires_grad:
                    raise UserError(
                        f"model: {name_of(func)} brings copies of a parameter, one for each sample, "
                        "together again; compute with one copy, which is the same"
                    )
                self.marks.sample(y, where, copies, assumed)
            elif where is not None:
                made = copies_of(func, args, kwargs) if isinstance(where, Unknown) else None
                if made is not None:
                    where = made.where(y.shape, self.batch)
                self.marks.sample(y, where, sources, assumed=made is not None)
            elif sources:
                self.marks.derived(y, sources)
                if moved:
                    self._rearranged[id(y)] = weakref.ref(y)
        self._calls += 1

    def _propagated(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        tensors: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> bool:
        """Whether this was a call of samples and constants alone, which is noted in short."""
        samples = []
        for t in tensors:
            known = self.marks.found(t)
            if known is not None:
                samples.append((t, known[1]))
            elif t.requires_grad and id(t) not in self.own:
                return False
        if not samples or (len(samples) < len(tensors) and any(y is t for y in outputs for t in tensors)):
            return False
        for y in outputs:
            if id(y) not in self.own:
                self.marks.sample(y, propagate(func, args, kwargs, samples, y))
        self._calls += 1
        return True

    def _copied(
        self, tensors: Sequence[Tensor], samples: Sequence[tuple[Tensor, Where]]
    ) -> frozenset[int] | None:
        """The parameters of which these are copies; None where one has something of the samples in it."""
        found = [self.marks.copies_of(t) for t, _ in samples]
        if not found or None in found:
            return None
        return frozenset[int]().union(*filter(None, found), *(self.comes_from(t) for t in tensors))

    def multiplied(
        self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor]
    ) -> set[str]:
        """Parameters that are laid out over the batch and then multiply samples in a call: weights."""
        if not any(self.is_sample(t) and not self.marks.only_copies(t) for t in tensors):
            return set()
        of = {i for t in weights_of(func, args, kwargs) for i in self.marks.copies_of(t) or ()}
        return {self.own[i] for i in of if self._by_id[i].dim() > 1}

    def _assumes(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        samples: Sequence[tuple[Tensor, Where]],
    ) -> bool:
        """Whether all of these are copies in the usual order; an error where another has another one."""
        found = [self.marks.assumed(t) for t, _ in samples]
        if not any(found) or all(found):
            return any(found)
        name = name_of(func)
        if not meet_in_order(name, args, kwargs, samples, self.batch):
            raise UserError(
                f"model: by {name}, samples meet copies of a tensor that has none, and which of "
                "the copies are of which sample cannot be told; let it broadcast, or expand it over the "
                "batch alone"
            )
        return False

    def _takes_rows(self, func: Callable[..., Any], i: int, where: Where) -> bool:
        """Whether an output looks like one row for each sample, but only because nothing moved in it."""
        if self.measured is None or not isinstance(where, Layout) or name_of(func) not in TAKES:
            return False
        still = self.measured[self._calls].still
        return i < len(still) and still[i]

    def where(self, x: Tensor) -> Where:
        """Where the samples of ``x`` are; None where it has none."""
        if self.marks.is_sample(x):
            return self.marks.where(x)
        return Unknown("has an unknown origin") if self.is_sample(x) else None

    def next_shape(self, where: Layout) -> list[int]:
        """The shape of the first output of the call that runs, as measured."""
        assert self.measured is not None
        shape = list(self.measured[self._calls].shapes[0])
        shape[where.dim] = where.positions * self.batch
        return shape

    def next_places(self, func: Callable[..., Any]) -> tuple[Where, ...] | None:
        """Where samples will be in the outputs of the call that runs, as measured; None if nothing was."""
        if self.measured is None:
            return None
        n = min(self._calls, len(self.measured) - 1)
        if self._calls > n or name_of(self.measured[n].func) != name_of(func):
            raise OtherPathError(max((m.layer for m in self.measured[max(n - 1, 0) : n + 1]), key=len))
        return self.measured[self._calls].where

    def _places(self, func: Callable[..., Any], outputs: Sequence[Tensor]) -> list[Where] | None:
        found = self.next_places(func)
        if found is None:
            return None
        assert self.measured is not None
        shapes = self.measured[self._calls].shapes
        return [
            self._checked(found[i], shapes[i], y.shape) if i < len(found) else Unknown("was not there before")
            for i, y in enumerate(outputs)
        ]

    def _checked(self, where: Where, small: torch.Size, shape: torch.Size) -> Where:
        """``where``, unless this shape does not go with the measured one."""
        if not isinstance(where, Layout):
            return where if tuple(small) == tuple(shape) or where is not None else Unknown(DATA)
        if len(small) != len(shape) or shape[where.dim] != where.positions * self.batch:
            return Unknown(DATA)
        others = [d for d in range(len(shape)) if d != where.dim and shape[d] != small[d]]
        # Sequences may be longer here than in the small passes; rows folded from them are then others, too.
        return Unknown(DATA) if others and where.positions > 1 else where

    def is_sample(self, x: Tensor) -> bool:
        """Whether ``x`` depends on samples."""
        if self.marks.is_sample(x):
            return True
        # A history that nobody saw being made: of samples, as far as anyone can tell.
        return x.requires_grad and id(x) not in self.own and not self.marks.parameters(x)

    def comes_from(self, x: Tensor) -> frozenset[int]:
        """The trainable parameters that ``x`` is, or is computed from without samples."""
        if not x.requires_grad:
            return frozenset()
        return frozenset((id(x),)) if id(x) in self.own else self.marks.parameters(x)

    def derivation(self, x: Tensor) -> Derivation | None:
        """How ``x`` is computed from parameters; None where it is not."""
        found = self.marks.parameters(x) if x.requires_grad else frozenset()
        if not found or id(x) in self.own:
            return None
        self.marks.used(x)
        order = sorted(found, key=lambda i: self.own[i])
        return Derivation(
            x, tuple(self.own[i] for i in order), tuple(self._by_id[i] for i in order),
            rearranged=self._is_rearranged([x]),
        )  # fmt: skip

    def _is_rearranged(self, tensors: Sequence[Tensor]) -> bool:
        used = [t for t in tensors if self.comes_from(t)]
        if len(used) != 1:
            return False
        known = self._rearranged.get(id(used[0]))
        return id(used[0]) in self.own or (known is not None and known() is used[0])

    def layout(self, x: Tensor) -> Layout:
        """Where the samples of ``x`` are.

        Raises:
            NeedsScoutError: That has to be measured first.
            IrregularError: They are nowhere in particular.
        """
        where = self.where(x)
        if isinstance(where, Layout):
            return where
        if self.measured is None:
            raise NeedsScoutError
        raise IrregularError

    def plain(self, x: Tensor, *parameters: Tensor | None) -> list[Tensor | None]:
        """Parameters for a call that nobody asks about: without history where they meet samples."""
        meets = self.log is None and self.is_sample(x)
        return [p.detach() if meets and p is not None and self.comes_from(p) else p for p in parameters]
