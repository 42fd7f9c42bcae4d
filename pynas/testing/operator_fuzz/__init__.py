"""Calls every compiled operator with arguments that are wrong or unusual.

``python -m pynas.testing.operator_fuzz --calls N --seed S``. Whatever a call of ``torch.ops.pynas`` is given,
it returns the right numbers or raises an exception: the process does not die, nothing outside the tensors is
read or written, nothing hangs, no integer overflows.

Calls are made in a process of their own, one after the other. Each is a valid one, out of those that the
public functions make on the samples of the conformance suites, with one to three changes: lists shortened,
lengthened and reordered, numbers out of range, tensors of another dtype, device, rank, size, stride or
memory. Their tensors end or begin at pages that nobody may touch. A call that succeeds is repeated on
contiguous copies and must give the same.

Call number i of a seed is always the same: ``--seed S --first i --calls 1`` repeats it.
"""

from __future__ import annotations

from pynas.testing.operator_fuzz._parent import Fault, Report, fuzz

__all__ = ["Fault", "Report", "fuzz"]
