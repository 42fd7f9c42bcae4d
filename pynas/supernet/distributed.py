"""Training in several processes that ``torchrun`` started: each takes its part of every batch.

All draw the same architectures, because these depend on seed and step alone. Gradients are averaged, and so
are the running statistics of batch norms; the weights stay equal, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """This process's number, 0 where there is one."""
    return distributed.get_rank() if _active() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _active() else 1


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def torchrun() -> Iterator[None]:
    """Join the processes of ``torchrun`` for a while; without it, nothing happens.

    gloo on the CPU; NCCL where there are GPUs, of which each process takes that of its local number.
    """
    if _active() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Put the mean over all processes into each of ``tensors``, which all of them pass in the same order."""
    if world() == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for members in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in members])
        distributed.all_reduce(flat)
        flat /= world()
        parts = torch.split(flat, [tensor.numel() for tensor in members])
        for tensor, part in zip(members, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


@torch.no_grad()
def start_alike(model: nn.Module) -> None:
    """Give every process the parameters and buffers of the first."""
    if world() > 1:
        for tensor in model.state_dict().values():
            whole = tensor.contiguous()
            distributed.broadcast(whole, 0)
            tensor.copy_(whole)


def barrier() -> None:
    """Wait for all."""
    if world() > 1:
        distributed.barrier()
