"""Calls every compiled operator with arguments that are wrong or unusual.

``python -m pynas.testing.operator_fuzz --calls N --seed S``. For any arguments, a call of ``torch.ops.pynas``
must return correct numbers or raise an exception: the process must not crash or hang, no memory outside the
tensors may be read or written, and no integer may overflow.

The calls run one after the other in a separate process. Each is a valid call, taken from those that public
functions make on the samples of the conformance suites, with one to three changes: lists shortened,
lengthened and reordered, numbers out of range, tensors of another dtype, device, rank, size, stride or
memory. Tensors begin or end at guard pages. A successful call is repeated on contiguous copies and must give
the same result.

Call number i of a seed is always the same: ``--seed S --first i --calls 1`` repeats it.
"""

from __future__ import annotations

from pynas.testing.operator_fuzz._parent import Fault, Report, fuzz

__all__ = ["Fault", "Report", "fuzz"]
