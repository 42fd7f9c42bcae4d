"""What a model is made of, noted without copying its weights, and how to make it so again."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from pynas._generators import GENERATORS, put_back

CONTAINERS: Final = frozenset({dict, OrderedDict, defaultdict, list, set, deque})
PLAIN: Final = frozenset({Tensor, nn.Parameter, nn.Buffer})
BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SAMPLE = 32  # values of a large weight that are looked at for writes which autograd does not count
SMALL = 512


class ModuleState:
    """One module: attributes and registered tensors, modules and hooks; its own containers and generators.

    Attributes come back as the objects that they were and containers with the same elements; what the
    elements hold inside is not followed.
    """

    __slots__ = (
        "_attributes",
        "_empty",
        "_full",
        "_generators",
        "_kind",
        "_module",
        "_plain",
        "_scripted",
        "_training",
    )

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind, self._training = module, type(module), module.training
        self._attributes = dict(vars(module))
        values = self._attributes.values()
        containers = [v for v in values if type(v) in CONTAINERS]
        self._empty = [c for c in containers if not c]  # most: there is one for each kind of hook
        self._full = [(c, c.copy()) for c in containers if c]
        kinds = set(map(type, values))
        drawing = not kinds.isdisjoint(GENERATORS)
        self._generators = [put_back(v) for v in values if type(v) in GENERATORS] if drawing else ()
        self._plain = [v for v in values if type(v) is Tensor and v.is_leaf] if Tensor in kinds else ()
        # TorchScript keeps tensors where `vars` does not see them.
        scripted = isinstance(module, torch.jit.ScriptModule)
        self._scripted = list(module._buffers.items()) if scripted else ()

    def restore(self) -> None:
        """Make it so again."""
        module, now = self._module, vars(self._module)
        if type(module) is not self._kind:
            module.__class__ = self._kind
        if "training" in now:  # by far the most usual change
            now["training"] = self._training
        elif module.training is not self._training:
            module.training = self._training
        if not _same(now, self._attributes):
            for key in now.keys() - self._attributes.keys():
                del now[key]
            now.update(self._attributes)
        if any(self._empty):
            for container in self._empty:
                container.clear()
        for container, content in self._full:
            if not _same(container, content):
                _refill(container, content)
        for key, buffer in self._scripted:
            if module._buffers[key] is not buffer:
                module._buffers[key] = buffer
        for step in self._generators:
            step()

    def tensors(self) -> Iterator[tuple[Tensor, bool]]:
        """Its own tensors, each with whether values that the forward changes are to come back.

        Those are buffers and plain attributes. Of attributes that autograd computed, such as a weight under
        the old weight norm, the reference alone is noted.
        """
        for parameter in self._module._parameters.values():
            if parameter is not None:
                yield parameter, False
        for buffer in self._module._buffers.values():
            if buffer is not None:
                yield buffer, True
        for value in self._plain:
            yield value, not value.requires_grad


class TensorState:
    """One tensor: memory, size, flags, gradient, hooks and attributes.

    Attributes:
        tensor: The tensor.
        keeps: Whether values that the forward changes come back; if not, changing them is an error.
        data: The same memory, whose version autograd counts separately.
        plain: Whether the numbers lie in memory as they are.
        version: How often autograd had seen it change.
    """

    __slots__ = (
        "_attributes",
        "_bytes",
        "_copy",
        "_grad",
        "_grad_version",
        "_hooked",
        "_hooks",
        "_leaf",
        "_requires_grad",
        "data",
        "keeps",
        "plain",
        "tensor",
        "version",
    )

    def __init__(self, tensor: Tensor, keeps: bool) -> None:
        self.tensor, self.keeps = tensor, keeps
        self._leaf, self._requires_grad = tensor.is_leaf, tensor.requires_grad
        self._grad = tensor.grad if self._leaf else None
        self.version = version(tensor)
        self._grad_version = 0 if self._grad is None else version(self._grad)
        self._attributes = dict(vars(tensor))
        self._hooks = tensor._backward_hooks, tensor._post_accumulate_grad_hooks
        self._hooked = [hooks and hooks.copy() for hooks in self._hooks]
        self.data = tensor.data
        self.plain = (
            type(tensor) in PLAIN
            and tensor.layout is torch.strided
            and not tensor.is_quantized
            and tensor.dtype.itemsize in BITS
        )
        self._bytes = self.data.untyped_storage().nbytes() if self.plain else 0
        self._copy = self.data.clone() if keeps and not self.plain else None

    def put_gradient_aside(self) -> None:
        """Take ``.grad`` away, so that a backward pass in the forward adds nothing to the caller's."""
        if self._grad is not None:
            self.tensor.grad = None

    def restore(self) -> None:
        """Make it so again, but for values in memory."""
        tensor = self.tensor
        if self.plain:
            if not self.whole:
                self.data.untyped_storage().resize_(self._bytes)
            if tensor.is_meta or tensor.dtype is not self.data.dtype or not tensor.is_set_to(self.data):
                tensor.data = self.data
        if self._leaf:
            if not tensor.is_leaf:
                tensor.detach_()
            if tensor.requires_grad is not self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            if tensor.grad is not self._grad:
                tensor.grad = self._grad
        if not _same(vars(tensor), self._attributes):
            _refill(vars(tensor), self._attributes)
        if tensor._backward_hooks is not self._hooks[0]:
            tensor._backward_hooks = self._hooks[0]
        if tensor._post_accumulate_grad_hooks is not self._hooks[1]:
            tensor._post_accumulate_grad_hooks = self._hooks[1]
        for hooks, content in zip(self._hooks, self._hooked, strict=True):
            if hooks is not None and not _same(hooks, content):
                _refill(hooks, content)
        if self._copy is not None and version(tensor) != self.version:
            tensor.copy_(self._copy)

    def changed(self) -> str:
        """What autograd saw change that cannot come back: "", "the value", or "its .grad"."""
        if not self.keeps and version(self.tensor) != self.version:
            return "the value"
        return "its .grad" if self._grad is not None and version(self._grad) != self._grad_version else ""

    @property
    def whole(self) -> bool:
        """Whether its memory has the size that it had."""
        return self.data.untyped_storage().nbytes() == self._bytes

    def piece(self) -> Tensor | None:
        """Its values in memory: all that are to come back, or as many of a weight as are looked at."""
        data, count = self.data, self.data.numel()
        if not self.plain or not count or data.is_meta:
            return None
        if self.keeps:
            return _distinct(data)
        if count <= SMALL:
            return data
        offset = data.storage_offset()
        dense = (offset + count) * data.dtype.itemsize <= self._bytes
        return data.as_strided((SAMPLE,), (count // SAMPLE,), offset) if dense else None


class Values:
    """Values of many tensors, joined with those of their kind: one copy and one comparison for all."""

    def __init__(self, states: Sequence[TensorState]) -> None:
        self._states = states
        kinds: dict[object, list[tuple[TensorState, Tensor]]] = {}
        for state in states:
            piece = state.piece()
            if piece is not None:
                kinds.setdefault((piece.device, piece.dtype), []).append((state, piece))
        self._kinds = [(pairs, _bits([piece for _, piece in pairs])) for pairs in kinds.values()]

    def changed(self) -> Iterator[tuple[TensorState, Tensor, Tensor]]:
        """The tensors whose values are others than at first, with these values and the first ones."""
        for pairs, bits in self._kinds:
            sizes = [piece.numel() for _, piece in pairs]
            # Memory that could not be given its size again must not be read.
            there = [
                (*pair, old)
                for pair, old in zip(pairs, torch.split(bits, sizes), strict=True)
                if pair[0].whole
            ]
            if not there:
                continue
            now = _bits([piece for _, piece, _ in there])
            if len(there) < len(pairs) or not torch.equal(now, bits):
                news = torch.split(now, [len(old) for _, _, old in there])
                for (state, piece, old), new in zip(there, news, strict=True):
                    if not torch.equal(new, old):
                        yield state, piece, old.view(piece.dtype).view(piece.shape)

    def restore(self) -> None:
        """Write the first values where they are others; what nobody wrote to may be read-only."""
        found = list(self.changed())
        pieces, olds = [piece for _, piece, _ in found], [old for *_, old in found]
        try:
            if found:
                torch._foreach_copy_(pieces, olds)
        except Exception:  # one by one: all but what cannot be written to
            for piece, old in zip(pieces, olds, strict=True):
                with contextlib.suppress(Exception), torch.inference_mode(piece.is_inference()):
                    piece.copy_(old)
            if next(self.changed(), None) is not None:
                raise
        states = [s for s in self._states if s.plain and version(s.tensor) != s.version]
        torch._C._autograd._unsafe_set_version_counter(  # an older graph may use them again
            tuple(s.tensor for s in states), tuple(s.version for s in states)
        )


def version(t: Tensor) -> int:
    """How often autograd saw ``t`` change."""
    return 0 if t.is_inference() else t._version


def _bits(pieces: list[Tensor]) -> Tensor:
    """Copies of all, one after the other, to compare: NaN is not equal to itself, and 0 is equal to -0."""
    joined: Tensor = _flatten_dense_tensors(pieces)  # type: ignore[no-untyped-call]
    if len(pieces) == 1:  # that is a view
        joined = joined.clone()
    return joined.view(BITS[joined.dtype.itemsize])


def _distinct(data: Tensor) -> Tensor:
    """``data`` with each number in memory once where it is expanded, so that it can be written to."""
    strides = data.stride()
    if 0 in strides:
        for dim, stride in enumerate(strides):
            if stride == 0 and data.shape[dim] > 1:
                data = data.narrow(dim, 0, 1)
    return data


def _same(container: Any, content: Any) -> bool:
    """Whether they have the same objects in the same order; `==` would ask tensors."""
    if len(container) != len(content):
        return False
    values = not isinstance(container, dict) or all(map(is_, container.values(), content.values()))
    return values and all(map(is_, container, content))


def _refill(container: Any, content: Any) -> None:
    container.clear()
    container.update(content) if isinstance(container, dict | set) else container.extend(content)
