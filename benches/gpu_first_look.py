"""What to ask a GPU first: does every operator run there, is it right, and what does a score take.

    python benches/gpu_first_look.py smoke|score|once [--save FILE] [--device cpu]

``smoke``: every operator once in each dtype, on small odd sizes, against the CPU in float64; a failure does
not stop the others, except where the GPU's context is lost. ``score``: cells of NAS-Bench-201 by twelve
proxies: milliseconds, kernels and host waits of one architecture, the difference from the CPU, and whether a
score comes with the same bits again. ``once``: each case of gpu_kernels.py once, for a profiler. Lines are
written as they come. ``--device cpu`` only tries the script.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_cases import images, kernel_cases, short
from torch import Tensor
from torch.utils import _pytree as pytree

from pynas import ops, spaces
from pynas.evaluate import ProxyEvaluator

TWELVE = (
    *("params", "flops", "zico", "naswot", "synflow", "snip", "grad_norm", "grasp", "fisher", "jacob_cov"),
    *("epe_nas", "zen"),
)
# Largest relative error by the dtype of the inputs; results that are sums in float32 are as good as those.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
CPU_ONLY = {torch.float16}  # what the CPU does not compute: the reference is in float64 anyway

Say = Callable[..., None]
Check = tuple[str, Callable[..., Any], tuple[Any, ...], torch.dtype]


def checks(device: str) -> Iterator[Check]:
    """Name, call, arguments and dtype of every check."""
    p = torch.ops.pynas
    for dtype in TOLERANCE:
        if device == "cpu" and dtype in CPU_ONLY:
            continue
        label = short(dtype)
        x, g = (images(6, c, 9, 9, dtype=dtype, device=device) for c in (12, 20))
        conv: dict[str, Any] = {"kernel_size": 3, "padding": 1}
        yield f"conv2d_grad_moments {label}", _with(ops.conv2d_grad_moments, bias=True, **conv), (g, x), dtype
        yield f"conv2d_grad_norms {label}", _with(ops.conv2d_grad_norms, **conv), (g, x), dtype
        yield f"conv2d_grad_gram {label}", _with(ops.conv2d_grad_gram, **conv), (g, x), dtype
        rows, grads = (torch.randn(9, n, device=device).to(dtype) for n in (33, 17))
        yield f"linear_grad_moments {label}", _with(ops.linear_grad_moments, bias=True), (grads, rows), dtype
        yield f"linear_grad_norms {label}", ops.linear_grad_norms, (grads, rows), dtype
        yield f"linear_grad_gram {label}", ops.linear_grad_gram, (grads, rows), dtype
        yield (
            f"activation_codes {label}",
            ops.activation_codes,
            (images(5, 7, 9, 9, dtype=dtype, device=device),),
            dtype,
        )
        x = images(2, 17, 11, 13, dtype=dtype, device=device)
        kernels = [torch.randn(17, 1, k, k, device=device).to(dtype) for k in (3, 5)]
        depthwise = lambda x, *w: p.depthwise_relu(x, list(w), [1, 2], 1, None, None, None)  # noqa: E731
        yield f"depthwise_relu {label}", depthwise, (x, *kernels), dtype
        yield f"pool3x3 {label}", lambda x: p.pool3x3(x, 2, None), (x,), dtype
        weights = torch.tensor([0.5, 2.0], device=device, dtype=torch.float64).to(
            torch.float64 if dtype == torch.float64 else torch.float32
        )
        zs = [images(4, 17, 6, 5, dtype=dtype, device=device) for _ in range(2)]
        yield f"normalized_sum {label}", _sum, (*zs, weights), dtype
        state = torch.randn(3, 9, 20, device=device).to(dtype), torch.randn(3, 9, 40, device=device).to(dtype)
        mixture = torch.rand(3, 5, device=device, dtype=weights.dtype)
        yield (
            f"mixed_activation {label}",
            _with(ops.mixed_activation, normalized=True),
            (*state, mixture),
            dtype,
        )
        affine = (
            torch.zeros(1, 7, 1, device=device).to(weights.dtype),
            torch.ones(1, 7, 1, device=device).to(weights.dtype),
        )
        values = [torch.randn(5, 7, 30, device=device).to(dtype) for _ in range(2)]
        yield f"affine_grad_moments {label}", ops.affine_grad_moments, (*values, *affine), dtype


def _with(call: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda *arguments: call(*arguments, **options)


def _sum(a: Tensor, b: Tensor, weights: Tensor) -> Any:
    """Result and gradients of the fused sum."""
    leaves = [t.detach().requires_grad_() for t in (a, b)]
    y = ops.normalized_sum(leaves, weights)
    return [y, *torch.autograd.grad(y.square().sum(), leaves)]


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of a result, those of records too."""
    if is_dataclass(result) and not isinstance(result, type):
        return [t for f in fields(result) for t in tensors_of(getattr(result, f.name))]
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_dataclass(leaf):
            found += tensors_of(leaf)
    return found


def smoke(say: Say, device: str) -> int:
    """How many checks fail."""
    failed = 0
    for name, call, arguments, dtype in checks(device):
        try:
            got = [t.detach().cpu() for t in tensors_of(call(*arguments))]
            wide = [t.cpu().double() if t.is_floating_point() else t.cpu() for t in arguments]
            wanted = [t.detach() for t in tensors_of(call(*wide))]
            errors = [_error(a, b) for a, b in zip(got, wanted, strict=True) if a.numel()]
            error = max(errors, default=0.0)
            is_right = error <= TOLERANCE[dtype]
            failed += not is_right
            say(smoke=name, ok=is_right, error=error, results=len(got))
        except Exception as error:
            failed += 1
            say(smoke=name, ok=False, error=f"{type(error).__name__}: {error}"[:300])
            if any(word in str(error) for word in ("illegal", "misaligned", "unspecified launch")):
                break  # nothing runs in this context any more
    return failed


def _error(got: Tensor, wanted: Tensor) -> float:
    if not wanted.is_floating_point():  # codes of signs, which rounding to a narrower dtype keeps
        return float((got != wanted).any())
    scale = wanted.double().abs().max().clamp_min(1)
    return float((got.double() - wanted.double()).abs().max() / scale)


def score(say: Say, device: str) -> int:
    """Twelve proxies of NAS-Bench-201."""
    space = spaces.get("nasbench201")
    batch, side, count = (8, 8, 1) if device == "cpu" else (64, 32, 6)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 3, side, side, generator=generator), torch.arange(batch) % 10
    architectures = [space.sample(random.Random(i)) for i in range(count)]
    reference = ProxyEvaluator(space, x, y, TWELVE, num_classes=10)
    expected = [reference(a).scores for a in architectures[:2]]
    evaluator = ProxyEvaluator(space, x.to(device), y.to(device), TWELVE, num_classes=10)
    evaluator(architectures[0])
    _wait(device)
    start = time.perf_counter()
    results = [evaluator(a) for a in architectures]
    _wait(device)
    milliseconds = 1e3 * (time.perf_counter() - start) / count
    again = evaluator(architectures[0]).scores
    off = {
        name: max(
            abs(r.scores[name] - e[name]) / max(1e-9, abs(e[name]))
            for r, e in zip(results, expected, strict=False)
        )
        for name in TWELVE
        if all(name in r.scores for r in results)
    }
    say(
        milliseconds_per_architecture=milliseconds,
        failed=[r.message for r in results if r.message],
        differ_when_repeated=[n for n in again if again[n] != results[0].scores.get(n)],
        off_from_cpu=off,
    )
    if device != "cpu":
        say(**_launches(lambda: evaluator(architectures[0])))
        say(host_waits=_waits(lambda: evaluator(architectures[0])))
    return sum(bool(r.message) for r in results)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _launches(run: Callable[[], object]) -> dict[str, Any]:
    """Kernels of a call, the time that they take, and the longest of them."""
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    kernels = [e for e in profile.events() or () if e.device_type.name == "CUDA"]
    totals: dict[str, float] = {}
    for event in kernels:
        totals[event.name[:80]] = totals.get(event.name[:80], 0.0) + event.device_time / 1e3
    longest = sorted(totals.items(), key=lambda pair: -pair[1])[:12]
    return {"kernels": len(kernels), "busy_milliseconds": sum(totals.values()), "longest": longest}


def _waits(run: Callable[[], object]) -> int:
    """How often the host waits for the GPU in a call."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(w.message) for w in caught)


def once(say: Say, device: str) -> int:
    """Each kernel of gpu_kernels.py once."""
    for case in kernel_cases(device, small=device == "cpu"):
        case.run(*case.inputs())
        _wait(device)
    say(once="done")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["smoke", "score", "once"])
    parser.add_argument("--save", type=Path, help="append every line to this file")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)

    def say(**facts: Any) -> None:
        line = json.dumps(facts)
        print(line, flush=True)
        if options.save is not None:
            with options.save.open("a") as file:
                file.write(line + "\n")

    failed = {"smoke": smoke, "score": score, "once": once}[options.what](say, options.device)
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    main()
