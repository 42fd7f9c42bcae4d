"""Training in several processes under ``torchrun``: each takes its part of every batch.

All processes draw the same architectures, since these depend only on seed and step. Gradients and running
statistics of batch norms are averaged; weights stay equal bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """Rank of this process; 0 if there is only one."""
    return distributed.get_rank() if _active() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _active() else 1


def _active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def torchrun() -> Iterator[None]:
    """Context that joins the processes of ``torchrun``; does nothing without it.

    Tensors on the CPU go through gloo, those on GPUs through NCCL, where each process uses the GPU of its
    local rank: a machine with GPUs may train a model on its CPU.
    """
    if _active() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, which have to pass them in the same order."""
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
    """Broadcast the parameters and buffers of the first process."""
    if world() > 1:
        for tensor in model.state_dict().values():
            whole = tensor.contiguous()
            distributed.broadcast(whole, 0)
            tensor.copy_(whole)


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()
