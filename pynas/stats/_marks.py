"""What each tensor of a forward pass is: samples, computed from parameters alone, or neither."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping

from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

from pynas.stats._layout import Unknown, Where


class Marks:
    """Tensors with samples and where these are; tensors computed from parameters, and from which.

    By identity and without keeping anything alive. A tensor that is neither is a constant, unless it has a
    history for autograd that nobody saw being made.
    """

    def __init__(self) -> None:
        self._samples: dict[int, tuple[weakref.ref[Tensor], Where]] = {}
        self._derived: dict[int, tuple[weakref.ref[Tensor], frozenset[int]]] = {}
        self._copies: dict[int, tuple[weakref.ref[Tensor], frozenset[int]]] = {}
        self._assumed: dict[int, weakref.ref[Tensor]] = {}
        self._constants: dict[int, weakref.ref[Tensor]] = {}
        self._written: dict[int, StorageWeakRef] = {}  # storages that samples were written into
        self._used: dict[int, StorageWeakRef] = {}  # of derived tensors whose values calls depend on by now

    def sample(
        self, x: Tensor, where: Where, copies_of: frozenset[int] | None = None, assumed: bool = False
    ) -> None:
        """Note a tensor that depends on samples.

        Args:
            x: The tensor.
            where: Where its samples are.
            copies_of: It only has a row for each of them, and nothing of them in it: what these parameters
                (by identity) make, and constants.
            assumed: Of such copies, which are of which sample is only the usual order.
        """
        self._samples[id(x)] = weakref.ref(x), where
        if copies_of is not None:
            self._copies[id(x)] = weakref.ref(x), copies_of
        elif self._copies:
            self._copies.pop(id(x), None)
        if assumed:
            self._assumed[id(x)] = weakref.ref(x)
        elif self._assumed:
            self._assumed.pop(id(x), None)

    def assumed(self, x: Tensor) -> bool:
        """Whether which of its rows are of which sample is only the usual order."""
        known = self._assumed.get(id(x))
        return known is not None and known() is x

    def only_copies(self, x: Tensor) -> bool:
        """Whether a sample tensor has a row for each sample but nothing of the samples in it."""
        return self.copies_of(x) is not None

    def copies_of(self, x: Tensor) -> frozenset[int] | None:
        """The parameters of which such a tensor holds copies; None of any other."""
        known = self._copies.get(id(x))
        return None if known is None or known[0]() is not x else known[1]

    @property
    def has_copies(self) -> bool:
        """Whether there has been such a tensor."""
        return bool(self._copies)

    def derived(self, x: Tensor, parameters: frozenset[int]) -> None:
        """Note a tensor computed from these parameters (by identity) and no samples."""
        self._derived[id(x)] = weakref.ref(x), parameters

    def constant(self, x: Tensor) -> None:
        """Note a tensor that is known to come from neither."""
        self._constants[id(x)] = weakref.ref(x)

    def is_constant(self, x: Tensor) -> bool:
        """Whether it was noted as one."""
        known = self._constants.get(id(x))
        return known is not None and known() is x

    def written(self, x: Tensor) -> None:
        """Note a tensor that samples were written into, so that whatever shares its memory has some too."""
        _note(self._written, x)

    def used(self, x: Tensor) -> None:
        """Note a derived tensor that has met samples: how it was computed must stay as it is."""
        _note(self._used, x)

    def is_used(self, x: Tensor) -> bool:
        """Whether it shares its memory with such a tensor."""
        return _is_noted(self._used, x)

    @property
    def plain(self) -> bool:
        """Whether there are no copies, and nothing that samples were written into."""
        return not (self._copies or self._assumed or self._written)

    def found(self, x: Tensor) -> tuple[weakref.ref[Tensor], Where] | None:
        """What was noted of ``x`` as a tensor of samples."""
        known = self._samples.get(id(x))
        return known if known is not None and known[0]() is x else None

    def where(self, x: Tensor) -> Where:
        """Where the samples of a sample tensor are."""
        known = self._samples.get(id(x))
        if known is not None and known[0]() is x:
            return known[1]
        return Unknown("came from where nobody could follow it")

    def is_sample(self, x: Tensor) -> bool:
        """Whether it depends on samples."""
        known = self._samples.get(id(x))
        if known is not None and known[0]() is x:
            return True
        return not self.parameters(x) and _is_noted(self._written, x)

    def parameters(self, x: Tensor) -> frozenset[int]:
        """The parameters that it is computed from; none for samples and constants."""
        known = self._derived.get(id(x))
        if known is None or known[0]() is not x:
            return frozenset()
        sample = self._samples.get(id(x))
        return known[1] if sample is None or sample[0]() is not x else frozenset()

    def any_sample(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of them depends on samples."""
        return any(self.is_sample(t) for t in tensors)


def _note(storages: dict[int, StorageWeakRef], x: Tensor) -> None:
    storage = _storage_of(x)
    if storage is not None:
        storages[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _is_noted(storages: Mapping[int, StorageWeakRef], x: Tensor) -> bool:
    if not storages:
        return False
    storage = _storage_of(x)
    noted = None if storage is None else storages.get(storage._cdata)
    return noted is not None and not noted.expired()  # type: ignore[no-untyped-call]


def _storage_of(x: Tensor) -> UntypedStorage | None:
    """Its memory; None for tensors that have none of their own: sparse ones, those that torch.func wraps."""
    try:
        return x.untyped_storage()
    except NotImplementedError:
        return None
