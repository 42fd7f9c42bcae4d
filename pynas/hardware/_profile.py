"""Costs of a forward pass in inference besides multiply-adds: activations, memory, traffic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import flop_registry

from pynas.architecture import Architecture
from pynas.hardware import _network
from pynas.hardware._network import Task
from pynas.hardware.operator_shapes import OperatorMode, is_view, tensors
from pynas.spaces import SearchSpace
from pynas.stats.data import call_model, leaves, writable
from pynas.stats.state import preserved


@dataclass(frozen=True, slots=True)
class Profile:
    """One forward pass in eval mode, for the whole batch.

    Attributes:
        params: Number of parameters; shared ones count once.
        flops: Floating-point operations of convolutions, matrix products and attention by PyTorch's counter:
            two for each multiply-add, so 2 times what the field's tables call FLOPs.
        activations: Output elements of those operators (I. Radosavovic et al., "Designing Network Design
            Spaces", CVPR 2020, arXiv:2003.13678).
        memory: Peak bytes of live inputs and activations, without parameters and workspaces.
        traffic: Bytes that all operators read and write, including parameters, without any cache.
    """

    params: int
    flops: int
    activations: int
    memory: int
    traffic: int

    @property
    def macs(self) -> int:
        """Multiply-adds: ``flops / 2``."""
        return self.flops // 2

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, ``flops / traffic``: operations per byte moved."""
        return self.flops / self.traffic if self.traffic else 0.0

    def to_dict(self) -> dict[str, float]:
        """All numbers, including the derived ones."""
        return asdict(self) | {"macs": self.macs, "intensity": self.intensity}


def profile(model: nn.Module, inputs: Any) -> Profile:
    """Count one forward pass of ``model``, which stays unchanged.

    Args:
        model: Any module, on any device; on ``meta`` nothing is computed.
        inputs: A batch for it: tensor [B, ...], or a tuple or dictionary of tensors. They stay as they are.

    Raises:
        UserError: Some parameters wait for a first batch.
    """
    with preserved(model), torch.no_grad():
        model.eval()
        inputs = writable(inputs)
        observer = _Observer(leaves(inputs), [*model.parameters(), *model.buffers()])
        with observer:
            call_model(model, inputs)
    return Profile(
        params=sum(p.numel() for p in model.parameters()),
        flops=observer.flops,
        activations=observer.activations,
        memory=observer.peak,
        traffic=observer.traffic,
    )


def profile_architecture(space: SearchSpace, arch: Architecture, task: Task | None = None) -> Profile:
    """:func:`profile` of an architecture's network, without computing or storing anything.

    Args:
        space: Space of ``arch``.
        arch: An architecture.
        task: Classes, image, batch; by default one image of the published size, and the network without the
            parts that cannot influence its output.
    """
    task = task or Task()
    return _network.follow(space, arch, task, profile)


class _Observer(OperatorMode):  # type: ignore[no-untyped-call]
    """Counts what operators read and write, and tracks which storages are live after each."""

    def __init__(self, inputs: list[Tensor], constants: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._constants = {t.untyped_storage()._cdata for t in constants}
        self.flops = self.activations = self.traffic = self.peak = 0
        self._bytes = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._born(inputs)

    def observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        written = tensors(outputs)
        if not is_view(func):
            self.traffic += sum(map(_bytes, tensors((args, kwargs)))) + sum(map(_bytes, written))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=outputs))
            self.activations += written[0].numel()
        self._born(written)

    def _born(self, created: list[Tensor]) -> None:
        expired = [key for key, (ref, _) in self._alive.items() if ref.expired()]  # type: ignore[no-untyped-call]
        for key in expired:
            self._bytes -= self._alive.pop(key)[1]
        for tensor in created:
            storage = tensor.untyped_storage()
            if storage._cdata in self._constants:  # a view of a parameter
                continue
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            if reference.cdata not in self._alive:
                self._alive[reference.cdata] = (reference, storage.nbytes())
                self._bytes += storage.nbytes()
        self.peak = max(self.peak, self._bytes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
