"""Tensors whose memory ends, or begins, at a page that nobody may touch."""

from __future__ import annotations

import ctypes
import math
import mmap

import torch
from torch import Tensor

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Region:
    """`size` bytes between two pages that kill whoever reads or writes them."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // _PAGE) * _PAGE
        length = self.size + 2 * _PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        start = _libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if start in (None, ctypes.c_void_p(-1).value):
            raise MemoryError(f"no {length} bytes to be had")
        self.start = start + _PAGE
        for page in (start, self.start + self.size):
            if _libc.mprotect(page, _PAGE, 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")


class GuardedMemory:
    """Regions for the tensors of one call, taken again for those of the next."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Region]] = {}
        self._used: list[_Region] = []

    def reset(self) -> None:
        """The tensors made so far are done with."""
        for region in self._used:
            self._free.setdefault(region.size, []).append(region)
        self._used.clear()

    def place(self, tensor: Tensor, at_end: bool) -> Tensor:
        """A copy with the same strides, the first or the last byte of its storage next to a page's edge."""
        if elements(tensor) == 0:
            return tensor
        reach = _reach(tensor)
        bytes_ = (reach + 1) * tensor.element_size()
        size = max(1 << 14, 1 << (bytes_ - 1).bit_length())
        regions = self._free.setdefault(-(-size // _PAGE) * _PAGE, [])
        region = regions.pop() if regions else _Region(size)
        self._used.append(region)
        start = region.start + (region.size - bytes_ if at_end else 0)
        buffer = (ctypes.c_char * bytes_).from_address(start)
        flat = torch.frombuffer(buffer, dtype=tensor.dtype)
        flat.copy_(tensor.as_strided((reach + 1,), (1,), tensor.storage_offset()))
        return flat.as_strided(tensor.shape, tensor.stride())


def elements(tensor: Tensor) -> int:
    """How many, also where torch cannot count them in an int64."""
    return math.prod(int(size) for size in tensor.shape)


def is_plain(tensor: Tensor) -> bool:
    """Whether this is a tensor of numbers in memory of its own that may be read, and not a huge one."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_neg()
        and not tensor.requires_grad
        and not tensor.is_inference()
        and elements(tensor) <= 1 << 20
        and math.prod(max(int(size), 1) for size in tensor.shape) <= 1 << 40
        and (elements(tensor) == 0 or _end(tensor) <= tensor.untyped_storage().nbytes())
    )


def _reach(tensor: Tensor) -> int:
    last = 0
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        last += (int(size) - 1) * int(stride)
    return last


def _end(tensor: Tensor) -> int:
    return (int(tensor.storage_offset()) + _reach(tensor) + 1) * tensor.element_size()
