from __future__ import annotations

import pytest
import torch

from pynas.ops.avg_pool2d import avg_pool2d, avg_pool2d_backward, avg_pool2d_reference

# batch, channels, height, width, kernel, stride, padding
CASES = [
    (2, 16, 8, 8, 3, 1, 1),
    (3, 5, 7, 9, 3, 2, 1),
    (1, 67, 5, 5, (4, 3), (3, 1), (2, 1)),
    (2, 33, 6, 4, 2, 2, 0),
    (2, 1, 1, 1, 1, 1, 0),
    (2, 17, 3, 3, 3, 1, 1),
    (2, 8, 9, 9, 2, 3, 0),  # strides beyond the window: some inputs enter no output
    (0, 4, 5, 5, 3, 1, 1),
]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 6e-3}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_matches_pytorch(case, include, dtype, layout) -> None:  # type: ignore[no-untyped-def]
    n, c, h, w, kernel, stride, padding = case
    geometry = {"stride": stride, "padding": padding, "count_include_pad": include}
    x = torch.randn(n, c, h, w).to(dtype).to(memory_format=layout)
    exact = x.double().requires_grad_()
    expected = avg_pool2d_reference(exact, kernel, **geometry)
    y = avg_pool2d(x, kernel, **geometry)
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected.detach(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    grad = torch.randn(expected.shape).to(dtype)
    (expected_grad,) = torch.autograd.grad(expected, exact, grad.double())
    got = avg_pool2d_backward(grad, x, kernel, **geometry)
    torch.testing.assert_close(got.double(), expected_grad, rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])


def test_errors_name_the_argument() -> None:
    x = torch.randn(1, 2, 4, 4)
    with pytest.raises(ValueError, match="kernel_size \\[9, 9\\] is larger than the padded image"):
        avg_pool2d(x, 9)
    with pytest.raises(ValueError, match="padding <= kernel_size / 2"):
        avg_pool2d(x, 3, padding=2)
    with pytest.raises(TypeError, match="expected float32 or bfloat16"):
        avg_pool2d(x.double(), 2)
    with pytest.raises(ValueError, match="grad_output: expected \\[1, 2, 2, 2\\], got"):
        avg_pool2d_backward(torch.randn(1, 2, 3, 3), x, 2)


@pytest.mark.slow
def test_opcheck() -> None:
    x = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.pynas.avg_pool2d.default, (x, [3, 3], [1, 1], [1, 1], False))
    torch.library.opcheck(torch.ops.pynas.avg_pool2d_backward.default, (x, x, [3, 3], [1, 1], [1, 1], False))
