"""Measure the networks of the zoo: ``python -m tests.zoo.run --only PATTERN --json``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass

import torch

import pynas
from pynas._errors import UserError
from pynas.stats import GradGram, GradMoments, GradNorms, collect
from tests.zoo import reference
from tests.zoo.networks import Network, all_networks

PROXIES = (
    "zico", "zico_per_sample", "snip", "grad_norm", "grad_sign", "grasp", "plain", "fisher", "synflow",
    "jacob_cov", "naswot", "ntk_condition", "l2_norm", "layers", "params", "flops",
)  # fmt: skip
# How the message of a score begins that rightly is none.
REASONS = ("UserError", "UnsupportedLayerError", "ValueError: the network calls no ReLU", "ArithmeticError")


@dataclass
class Outcome:
    """What became of one network with one number of samples.

    Attributes:
        name: Of the network.
        family: Of the network.
        batch: Number of samples.
        status: ``"ok"``, ``"refused"``, ``"wrong"``, ``"raw"``, ``"coupled"`` where samples depend on each
            other and there are numbers all the same, or ``"broken"`` where the network itself fails.
        message: Why it is not ok.
        passes: Time of the collection, in plain forward and backward passes.
        seconds: Time of everything.
        parameters: How many values they have.
        coverage: Of a score, the share of the weights that were counted.
    """

    name: str
    family: str
    batch: int
    status: str
    message: str = ""
    passes: float = 0.0
    seconds: float = 0.0
    parameters: int = 0
    coverage: float = 1.0


def measure(network: Network, batch: int) -> Outcome:
    """Collect statistics of one network, and compare them with the loop over samples."""
    start = time.perf_counter()
    outcome = Outcome(network.name, network.family, batch, "ok")
    try:
        model = network.model()
        inputs = network.inputs(batch)
        targets = None if network.targets is None else network.targets(batch)
        outcome.parameters = sum(p.numel() for p in model.parameters())
        modes = {m: m.training for m in model.modules()}
        buffers = reference.buffers_of(model)
        reference.frozen(model)
        rows = reference.per_sample(model, inputs, targets, network.loss, batch)
        reference.restore(buffers)
        reference.forget(model)
        if not all(torch.isfinite(g).all() for g in rows.values()):
            raise ArithmeticError("its gradients are not finite")
        before = time.perf_counter()
        whole = reference.loss_of(model, inputs, targets, network.loss)
        whole.backward()
        plain = time.perf_counter() - before
        sums = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        apart = reference.coupled(sums, rows, network.tolerance)
        if apart:
            reference.restore(buffers)
            rows = reference.per_sample(model, inputs, targets, network.loss, batch, copies=2)
            apart = reference.coupled(sums, rows, network.tolerance)
        for i, p in enumerate(model.parameters()):
            p.grad = torch.full_like(p, 0.5) if i % 2 else None
        reference.forget(model)
        for m, mode in modes.items():
            m.training = mode
        reference.restore(buffers)
    except Exception as error:
        outcome.status, outcome.message = "broken", _said(error)
        return outcome
    state = reference.snapshot(model)
    before = time.perf_counter()
    needs = [GradMoments(("sum", "abs", "square")), GradNorms(), GradGram()]
    try:
        found = collect(model, inputs, targets, network.loss, needs=needs, batch_norm="frozen")
        outcome.passes = (time.perf_counter() - before) / plain
        if apart:
            outcome.status, outcome.message = (
                "coupled",
                f"samples depend on each other: {', '.join(apart[:3])}",
            )
        elif wrong := reference.differences(found, rows, network.tolerance):
            outcome.status = "wrong"
            outcome.message = f"{len(wrong)} values: " + "; ".join(str(d) for d in wrong[:3])
    except UserError as error:
        outcome.status, outcome.message = "refused", str(error)
    except Exception as error:
        outcome.status, outcome.message = "raw", _said(error)
    moved = reference.changed(state, reference.snapshot(model))
    if moved:
        outcome.status = "wrong"
        outcome.message = f"changed: {', '.join(moved[:4])}; {outcome.message}"
    outcome.seconds = time.perf_counter() - start
    return outcome


def _said(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ends = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in frames[-3:]]
    return f"{type(error).__name__}: {str(error)[:300]} [{' < '.join(reversed(ends))}]"


def even(network: Network) -> int:
    """A number of samples that ``zico`` can split."""
    return next((batch for batch in network.batches if batch % 2 == 0), 4)


def scores(network: Network, batch: int) -> list[Outcome]:
    """Every proxy of one network, each by itself where all together fail."""
    outcomes = []
    try:
        model = network.model()
        inputs = network.inputs(batch)
        targets = None if network.targets is None else network.targets(batch)
    except Exception as error:
        return [Outcome(network.name, network.family, batch, "broken", _said(error))]
    for proxy in PROXIES:
        start = time.perf_counter()
        state = reference.snapshot(model)
        status, message, coverage = "ok", "", 1.0
        try:
            score = pynas.score(
                model,
                inputs,
                targets,
                (proxy,),
                precision="float64" if network.double else "float32",
                loss_fn=network.loss,
                seed=0,
            )[proxy]
            status, message, coverage = score.status, score.message, score.coverage
            if status == "failed" and not message.startswith(REASONS):
                status = "raw"
        except UserError as error:
            status, message = "failed", str(error)
        except Exception as error:
            status, message = "raw", _said(error)
        moved = reference.changed(state, reference.snapshot(model))
        if moved:
            status, message = "wrong", f"changed: {', '.join(moved[:4])}; {message}"
        outcomes.append(
            Outcome(
                f"{network.name}/{proxy}",
                network.family,
                batch,
                status,
                message,
                0,
                time.perf_counter() - start,
                coverage=coverage,
            )
        )
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern of names or families; several with commas")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--scores", action="store_true", help="run every proxy instead")
    parser.add_argument("--list", action="store_true", help="only name the networks")
    parser.add_argument("--batch", type=int, help="this number of samples instead of the network's own")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    patterns = options.only.split(",")
    chosen = [
        n
        for n in all_networks().values()
        if any(fnmatch.fnmatch(n.name, p) or fnmatch.fnmatch(n.family, p) for p in patterns)
    ]
    counts: Counter[str] = Counter()
    for network in chosen:
        if options.list:
            print(f"{network.name:40} {network.family}")
            continue
        if not network.available:
            counts["skipped"] += 1
            continue
        batches = (options.batch,) if options.batch else network.batches
        outcomes = (
            scores(network, even(network))
            if options.scores
            else [measure(network, batch) for batch in batches]
        )
        for outcome in outcomes:
            counts[outcome.status] += 1
            _show(outcome, options.json, options.scores)
    print(json.dumps(counts) if options.json else f"{len(chosen)} networks: {dict(counts)}", flush=True)


def _show(outcome: Outcome, as_json: bool, short: bool) -> None:
    if as_json:
        print(json.dumps(asdict(outcome)), flush=True)
        return
    if short and outcome.status == "ok":
        return
    text = f"{outcome.status}: {outcome.message}" if outcome.message else outcome.status
    print(
        f"{outcome.name:34} B={outcome.batch:<3} {outcome.passes:6.1f} passes {outcome.seconds:6.1f}s "
        f"{outcome.parameters:>9,}  {text}",
        flush=True,
    )


if __name__ == "__main__":
    main()
