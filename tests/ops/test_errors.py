"""Bad arguments: each message names the argument, what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, randn
from torch._subclasses.fake_tensor import FakeTensorMode

from pynas import ops
from pynas.ops._fakes import register_fake

INTEGERS = torch.zeros(4, 5, 6, 6, dtype=torch.int64)


def conv2d(delta: Any = None, input: Any = None, kernel_size: Any = 3, **options: Any) -> Any:
    delta = randn(4, 5, 6, 6) if delta is None else delta
    input = randn(4, 3, 6, 6) if input is None else input
    return ops.conv2d_grad_moments(delta, input, kernel_size, **{"padding": 1, **options})


def linear(delta: Tensor, input: Tensor, **options: Any) -> Any:
    return ops.linear_grad_moments(delta, input, **options)


def affine(shape: tuple[int, ...], statistics: tuple[int, ...], **options: Any) -> Any:
    x = randn(shape)
    return ops.affine_grad_moments(x, x, torch.zeros(statistics), torch.ones(statistics), **options)


def embedding(delta: Tensor, indices: Tensor, rows: int = 5, **options: Any) -> Any:
    return ops.embedding_grad_moments(delta, indices, rows, **options)


def update(grad: Tensor, mean: Tensor, count: int = 1) -> None:
    ops.moments_update(grad, mean, torch.zeros_like(mean), torch.zeros_like(mean), count)


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: conv2d(INTEGERS),
        TypeError,
        r"grad_output: expected float32.*got torch.int64.*grad_output.float\(\)",
    ),
    (lambda: conv2d([1.0]), TypeError, "grad_output: expected a torch.Tensor, got list"),
    (
        lambda: conv2d(randn(4, 5, 6)),
        ValueError,
        r"grad_output: expected 4 axes \[B, O, Ho, Wo\], got shape \(4, 5, 6\)",
    ),
    (
        lambda: conv2d(randn(4, 5, 6, 6).double()),
        TypeError,
        r"input: expected the dtype of grad_output.*float64.*input.to",
    ),
    (
        lambda: conv2d(randn(2, 5, 6, 6)),
        ValueError,
        r"input: expected 2 samples \(axis 0\) as in grad_output, got 4",
    ),
    (
        lambda: conv2d(randn(4, 5, 6, 5)),
        ValueError,
        "grad_output: expected width 6 for an input of 6.*got 5; pass",
    ),
    (lambda: conv2d(stride=2), ValueError, "grad_output: expected height 3 .*stride 2.*got 6"),
    (
        lambda: conv2d(group_size=3),
        ValueError,
        "group_size: expected a divisor of the batch size 4, got 3; drop",
    ),
    (lambda: conv2d(group_size=0), ValueError, "group_size: expected at least 1 sample"),
    (lambda: conv2d(groups=2), ValueError, "groups: expected a positive divisor of the 3 input and 5 output"),
    (
        lambda: conv2d(kernel_size=(3, 3, 3)),
        ValueError,
        r"kernel_size: expected an int or two ints.*\(3, 3, 3\)",
    ),
    (
        lambda: conv2d(kernel_size=0),
        ValueError,
        r"kernel_size: expected two integers from 1 to 2147483647, got \(0, 0\)",
    ),
    (lambda: conv2d(stride=(2, 0)), ValueError, r"stride: expected two integers from 1.*got \(2, 0\)"),
    (lambda: conv2d(dilation=0), ValueError, "dilation: expected two integers from 1"),
    (lambda: conv2d(padding=-1), ValueError, r"padding: expected two integers from 0.*got \(-1, -1\)"),
    (
        lambda: conv2d(padding="same"),
        TypeError,
        "padding: expected an int or two ints, got 'same'; for 'same' pad",
    ),
    (
        lambda: conv2d(moments=("sum", "mean")),
        ValueError,
        "moments: expected names out of sum, abs.*got 'mean'",
    ),
    (lambda: conv2d(moments="sum"), TypeError, r"moments: expected a sequence.*pass \('sum',\)"),
    (lambda: conv2d(moments=()), ValueError, "moments: expected at least one"),
    (
        lambda: conv2d(randn(4, 5, 6, 6, device="meta")),
        ValueError,
        r"input: expected the device of grad_output, meta, got cpu; move it with input.to",
    ),
    (
        lambda: linear(randn(3), randn(3, 2)),
        ValueError,
        r"grad_output: expected \[B, ..., O\], got shape \(3,\)",
    ),
    (
        lambda: linear(randn(3, 4, 2), randn(3, 5, 2)),
        ValueError,
        r"input: expected the positions \(4,\).*got \(5,\)",
    ),
    (lambda: linear(randn(3, 2), randn(2, 2)), ValueError, "input: expected 3 samples"),
    (
        lambda: linear(randn(3, 2), randn(3, 2), group_size=2),
        ValueError,
        "group_size: expected a divisor of .* 3, got 2",
    ),
    (lambda: affine((2, 3, 4, 4), (1, 3, 1)), ValueError, r"grad_output: expected \[B, C, T\].*flatten\(2\)"),
    (
        lambda: affine((2, 6, 4), (1, 4, 1)),
        ValueError,
        "mean: expected .2 or 1, a divisor of the 6 channels, 4 or 1., got",
    ),
    (lambda: affine((2, 6, 4), (3, 6, 1)), ValueError, "mean: expected"),
    (lambda: affine((2, 6, 4), (6,)), ValueError, "mean: expected"),
    (lambda: affine((3, 6, 4), (1, 6, 1), group_size=2), ValueError, "group_size: expected a divisor"),
    (
        lambda: embedding(randn(2, 3, 4), torch.zeros(2, 3)),
        TypeError,
        "indices: expected int64 or int32, got torch.float32",
    ),
    (
        lambda: embedding(randn(2, 3), torch.zeros(2, 3, dtype=torch.long)),
        ValueError,
        "grad_output: expected the shape of indices",
    ),
    (
        lambda: embedding(randn(2, 1), torch.tensor([1, 5])),
        ValueError,
        "indices: expected rows 0 to 4, got 5",
    ),
    (
        lambda: embedding(randn(2, 1), torch.tensor([1, -1])),
        ValueError,
        "indices: expected rows 0 to 4, got -1",
    ),
    (
        lambda: embedding(randn(2, 1), torch.tensor([1, 2]), padding_idx=5),
        ValueError,
        "padding_idx: expected None or a row of 5",
    ),
    (
        lambda: update(randn(3), torch.zeros(4)),
        ValueError,
        r"mean: expected the shape \(3,\) of grad, got \(4,\)",
    ),
    (
        lambda: update(randn(3), torch.zeros(3).double()),
        TypeError,
        "mean: expected torch.float32 for a grad of torch.float32",
    ),
    (lambda: update(randn(3, 2), torch.zeros(2, 3).T), ValueError, "mean: expected a contiguous tensor"),
    (
        lambda: update(randn(3), torch.zeros(3), 0),
        ValueError,
        "count: expected the number of gradients.*got 0",
    ),
    (lambda: ops.activation_codes(INTEGERS), TypeError, r"x: expected float32.*got torch.int64.*x.float\(\)"),
    (lambda: ops.activation_codes(torch.tensor(1.0)), ValueError, r"x: expected activations \[B, ...\]"),
    (lambda: ops.code_agreement(randn(2, 3), 150), TypeError, "codes: expected an int64 tensor.*float32"),
    (lambda: ops.code_agreement(INTEGERS, 3), ValueError, r"codes: expected 2 axes.*\(4, 5, 6, 6\)"),
    (lambda: ops.code_agreement(INTEGERS[0, 0], 400), ValueError, "features: expected .* 6 words.*got 400"),
    (
        lambda: ops.code_agreement_update(randn(3, 2), torch.zeros(3, 3)),
        TypeError,
        "agreement: expected an int64 tensor, got torch.float32",
    ),
    (
        lambda: ops.code_agreement_update(randn(3, 2), torch.zeros(2, 2, dtype=torch.int64)),
        ValueError,
        r"agreement: expected the shape \(3, 3\) of pairs of samples, got \(2, 2\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[message[:30] for _, _, message in CASES])
def test_bad_argument(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (
            "affine_grad_moments",
            (randn(4, 3, 2), randn(4, 3, 2), torch.zeros(1, 2, 1), torch.ones(1, 2, 1), 1, 1),
        ),
        (
            "affine_grad_moments",
            (randn(4, 3, 2), randn(4, 3, 2), torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 0, 1),
        ),
        (
            "affine_grad_moments",
            (randn(4, 3, 2), randn(4, 3, 2), torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 1, 3),
        ),
        (
            "affine_grad_moments",
            (randn(4, 3, 2), randn(4, 3, 1), torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 1, 1),
        ),
        (
            "affine_grad_norms",
            (randn(4, 3), randn(4, 3), torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 1, False),
        ),
        ("affine_grad_gram", (randn(4, 3), randn(4, 3), torch.zeros(1, 3, 1), torch.ones(1, 3, 1), 1, True)),
        ("embedding_grad_moments", (randn(2, 3, 4), torch.zeros(2, 2, dtype=torch.long), 5, None, 1, 1)),
        ("embedding_grad_moments", (randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), 5, None, 32, 1)),
        ("embedding_grad_moments", (randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), 5, None, 1, 0)),
        ("embedding_grad_norms", (randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), 5, 5, 1)),
        ("embedding_grad_gram", (randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), 0, None, 1)),
        ("moments_update", (randn(3), torch.zeros(3), torch.zeros(2), torch.zeros(3), 1)),
        ("code_agreement", (INTEGERS[0, 0], 400, torch.zeros(6, 6, dtype=torch.int64))),
        ("code_agreement_update", (randn(3, 2), torch.zeros(2, 2, dtype=torch.int64))),
    ],
)
def test_compiled_operators_check_for_themselves(op: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=rf"(affine_grad_moments|{op}): .*expected"):
        getattr(torch.ops.pynas, op)(*arguments)


LONG = torch.zeros(4, 3, dtype=torch.long)
STATISTIC = torch.ones(1, 3, 1)
WINDOW = ([3, 3], [1, 1], [1, 1], [1, 1], 1)

# (operator, arguments that fit, the same with one that does not)
MISFITS: list[tuple[str, tuple[Any, ...], list[tuple[Any, ...]]]] = [
    (
        f"conv2d_grad_{kind}",
        (randn(4, 5, 6, 6), randn(4, 3, 6, 6), *WINDOW, *rest),
        [
            (randn(2, 5, 6, 6), randn(4, 3, 6, 6), *WINDOW, *rest),
            (randn(4, 5, 6, 5), randn(4, 3, 6, 6), *WINDOW, *rest),
            (randn(4, 5, 6, 6), randn(4, 3, 6, 6).double(), *WINDOW, *rest),
            (randn(4, 5, 6, 6), randn(4, 3, 6, 6), [3, 3], [0, 1], *WINDOW[2:], *rest),
            (randn(4, 5, 6, 6), randn(4, 3, 6, 6), *WINDOW[:4], 2, *rest),
        ],
    )
    for kind, rest in (("moments", (1, 1, True)), ("norms", (1, True)), ("gram", (1, True)))
]
MISFITS += [
    (
        f"linear_grad_{kind}",
        (randn(4, 2, 5), randn(4, 2, 3), *rest),
        [
            (randn(4, 2, 5), randn(4, 1, 3), *rest),
            (randn(4), randn(4), *rest),
            (randn(4, 2, 5), randn(4, 2, 3), *rest[:-2], 3, True),
            (randn(4, 2, 5), randn(4, 2, 3), *rest[:-2], 0, True),
        ],
    )
    for kind, rest in (("moments", (1, 1, True)), ("norms", (1, True)), ("gram", (1, True)))
]
MISFITS += [
    (
        f"affine_grad_{kind}",
        (randn(4, 3, 2), randn(4, 3, 2), STATISTIC, STATISTIC, *rest),
        [
            (randn(4, 3, 1), randn(4, 3, 2), STATISTIC, STATISTIC, *rest),
            (randn(4, 3, 2), randn(4, 3, 2), torch.ones(1, 2, 1), STATISTIC, *rest),
            (randn(4, 3, 2), randn(4, 3, 2), STATISTIC, torch.ones(3, 3, 1), *rest),
        ],
    )
    for kind, rest in (("moments", (1, 1)), ("norms", (1, True)), ("gram", (1, True)))
]
MISFITS += [
    (
        f"embedding_grad_{kind}",
        (randn(4, 3, 2), LONG, 5, 1, *rest),
        [
            (randn(4, 2, 2), LONG, 5, 1, *rest),
            (randn(4, 3, 2), LONG.float(), 5, 1, *rest),
            (randn(4, 3, 2), LONG, 5, 5, *rest),
            (randn(4, 3, 2), LONG, 5, 1, *rest[:-1], 3),
        ],
    )
    for kind, rest in (("moments", (1, 1)), ("norms", (1,)), ("gram", (1,)))
]
MISFITS += [
    (
        "moments_update",
        (randn(3), torch.zeros(3), torch.zeros(3), torch.zeros(3), 1),
        [
            (randn(3), torch.zeros(4), torch.zeros(3), torch.zeros(3), 1),
            (randn(3), torch.zeros(3), torch.zeros(3).double(), torch.zeros(3), 1),
            (randn(3), torch.zeros(3), torch.zeros(3), torch.zeros(3), 0),
        ],
    ),
    ("activation_codes", (randn(3, 2),), [(torch.tensor(1.0),), (LONG,)]),
    (
        "code_agreement",
        (LONG, 180, torch.zeros(4, 4, dtype=torch.long)),
        [(LONG, 200, torch.zeros(4, 4, dtype=torch.long)), (LONG, 180, torch.zeros(3, 4, dtype=torch.long))],
    ),
    (
        "code_agreement_update",
        (randn(3, 2), torch.zeros(3, 3, dtype=torch.long), 1),
        [(randn(3, 2), torch.zeros(3, 2, dtype=torch.long), 1), (randn(3, 2), torch.zeros(3, 3), 1)],
    ),
]


@pytest.mark.parametrize(("op", "fitting", "misfits"), MISFITS, ids=[op for op, _, _ in MISFITS])
def test_shapes_of_results_are_refused_where_there_is_none(
    op: str, fitting: tuple[Any, ...], misfits: list[tuple[Any, ...]]
) -> None:
    """On tensors without values, and while a program that calls the operator is being traced."""
    function = getattr(torch.ops.pynas, op)

    def to(device: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.to(device) if isinstance(a, Tensor) else a for a in arguments)

    if op != "embedding_grad_moments":  # how many rows are touched is not known without values
        function(*to("meta", fitting))
    for arguments in misfits:
        with pytest.raises(ValueError, match=f"^{op}: expected "):
            function(*to("meta", arguments))
        with FakeTensorMode() as mode, pytest.raises(ValueError, match=f"^{op}: expected "):
            function(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
        with pytest.raises((TypeError, ValueError), match=f"^{op}: .*: expected "):
            function(*arguments)


def test_a_core_of_other_sources_says_so() -> None:
    with pytest.raises(ImportError, match=r"_C.*\.so has no operator no_such: .*make build"):
        register_fake("no_such", lambda: None)
