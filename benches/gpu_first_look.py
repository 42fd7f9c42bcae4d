"""What to ask a GPU first: does every operator run there, is it right, and what does a score take.

    python benches/gpu_first_look.py smoke|score|once [--save FILE] [--device cpu]

``smoke``: every operator once in each dtype against its definition in float64, by the checks of the tests; a
failure does not stop the others, except where the GPU's context is lost. ``score``: cells of NAS-Bench-201 by
twelve proxies: milliseconds, kernels and host waits of one architecture, the difference from the CPU, and
whether a score comes with the same bits again. ``once``: each case of gpu_kernels.py once, for a profiler.
Lines are written as they come. ``--device cpu`` only tries the script.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_cases import kernel_cases, short

from pynas import spaces
from pynas.evaluate import ProxyEvaluator
from pynas.testing.differentiable import DIFFERENTIABLE, check_against_definition
from pynas.testing.ops import DTYPES, SPECS, check_forward

TWELVE = (
    *("params", "flops", "zico", "naswot", "synflow", "snip", "grad_norm", "grasp", "fisher", "jacob_cov"),
    *("epe_nas", "zen"),
)
Say = Callable[..., None]


def smoke(say: Say, device: str) -> int:
    """How many of the conformance suites' checks fail: every operator once in each dtype."""
    failed = 0
    for name, check in checks(device):
        try:
            check()
        except Exception as error:
            failed += 1
            say(smoke=name, ok=False, error=f"{type(error).__name__}: {error}"[:300])
            if any(word in str(error) for word in ("illegal", "misaligned", "unspecified launch")):
                break  # nothing runs in this context any more
        else:
            say(smoke=name, ok=True)
    return failed


def checks(device: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A call of each operator, with its gradients where it has them, against its definition in float64."""
    for spec in SPECS.values():
        for dtype in DTYPES:
            check = partial(check_forward, spec, spec.samples[0], dtype, device=device)
            yield f"{spec.name} {short(dtype)}", check
    for differentiable in DIFFERENTIABLE.values():
        for dtype in differentiable.dtypes:
            sample, layout = differentiable.samples[0], differentiable.layouts[0]
            yield (
                f"{differentiable.name} {short(dtype)}",
                partial(check_against_definition, differentiable, sample, dtype, layout, device=device),
            )


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
