"""Supernet Shifting: an evolutionary search that fine-tunes the shared weights on its candidates.

Source: B. Zhang, X. Wang, X. Qin, J. Yan, "Boosting Order-Preserving and Transferability for Neural
Architecture Search: a Joint Architecture Refined Search and Fine-tuning Approach", CVPR 2024,
arXiv:2403.11380.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pynas._errors import UserError
from pynas.architecture import Architecture
from pynas.stats.data import check_labels, explaining, label_range
from pynas.strategies.spos_evolution import SPOSEvolution
from pynas.supernet import training_state
from pynas.supernet._base import SharedWeights
from pynas.supernet._shifting_parts import Candidate, ShiftingEvolution, ShiftingOptions, ShiftingResult
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from pynas.supernet.evaluation import SubnetEvaluator, SubnetScore
from pynas.supernet.seeds import Batches, derive
from pynas.trial import Evaluation, Status, Trial

__all__ = [
    "Candidate",
    "Shifting",
    "ShiftingEvolution",
    "ShiftingOptions",
    "ShiftingResult",
    "transfer",
]


class Shifting:
    """Searches and trains at the same time, in place.

    All random numbers of generation g depend on ``(seed, g)`` and the state before it, which a checkpoint
    holds: an interrupted search resumes bit for bit. A candidate whose loss is not finite fails; the weights
    are reset to those before it, and the search continues.

    Weights that an architecture does not use remain unchanged, without decay or momentum; in the authors'
    code both continue. Running statistics are shared by all paths, as there. The evaluator may recalibrate
    them; the authors' code does not.

    Args:
        model: The supernet, on its device.
        inputs: Training images ``[N, C, H, W]``.
        targets: ``[N]`` int64.
        evaluate: Evaluator of ``model`` on other images.
        options: Length and rates of the training.
        strategy: A strategy with the desired sizes; if None, :class:`ShiftingEvolution` with its defaults.
        seed: Seed of all random numbers.
        checkpoints: Folder of checkpoints, one after each generation; None for none.
        on_generation: Called after each generation with its number and candidates.

    Raises:
        UserError: Arguments do not fit together.
    """

    def __init__(
        self,
        model: SharedWeights,
        inputs: Tensor,
        targets: Tensor,
        evaluate: SubnetEvaluator,
        options: ShiftingOptions | None = None,
        *,
        strategy: SPOSEvolution | None = None,
        seed: int = 0,
        checkpoints: Path | str | None = None,
        on_generation: Callable[[int, Sequence[Candidate]], None] | None = None,
    ) -> None:
        self.options = options or ShiftingOptions()
        if evaluate.model is not model:
            raise UserError("evaluate: expected an evaluator of the same model")
        if len(inputs) != len(targets) or len(inputs) < self.options.batch_size:
            raise UserError(
                "inputs, targets: expected equally many, at least "
                f"batch_size={self.options.batch_size}, got {len(inputs):,} and {len(targets):,}"
            )
        self.model, self.inputs, self.targets, self.evaluate = model, inputs, targets, evaluate
        self._labels = label_range(targets)
        self.strategy = strategy or ShiftingEvolution(model.space, seed=seed)
        self.seed, self.on_generation = seed, on_generation
        self.folder = None if checkpoints is None else CheckpointFolder(Path(checkpoints))
        self.device = next(model.parameters()).device
        self._batches = Batches(torch.arange(len(targets)), self.options.batch_size, derive(seed, "shifting"))
        last = list(model.classifier_parameters())
        rest = [p for p in model.parameters() if all(p is not other for other in last)]
        rate = self.options.classifier_learning_rate or self.options.learning_rate
        groups = [*self._groups(rest), *self._groups(last, lr=rate)]
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer = torch.optim.SGD(
            groups,
            self.options.learning_rate,
            momentum=self.options.momentum,
            weight_decay=self.options.weight_decay,
        )

    def _groups(self, parameters: Sequence[nn.Parameter], **settings: float) -> list[dict[str, Any]]:
        """Groups of the optimiser: one, or one of vectors without decay after one of the rest."""
        if self.options.decay_vectors:
            return [{"params": list(parameters), **settings}]
        vectors = [p for p in parameters if p.dim() < 2]
        matrices = [p for p in parameters if p.dim() >= 2]
        undecayed = {"params": vectors, "weight_decay": 0.0, **settings}
        return [{"params": matrices, **settings}, *([undecayed] if vectors else [])]

    def run(self, *, resume: bool = False) -> ShiftingResult:
        """Search to the end.

        Args:
            resume: Continue from the last intact checkpoint of the folder, or start if there is none.

        Raises:
            UserError: The folder holds another search, or this one and ``resume`` is false, or only damaged
                checkpoints.
        """
        begun, found, damaged = self._begin(resume)
        devices = [self.device] if self.device.type == "cuda" else []
        train = self._shift_each if self.options.variant == "code" else self._shift_together
        with torch.random.fork_rng(devices=devices):
            for generation in range(begun, self.options.generations + 1):
                torch.manual_seed(derive(self.seed, generation, "layers"))
                architectures = [self.strategy.ask() for _ in range(self.strategy.population_size)]
                self.model.train()
                candidates = [
                    Candidate(
                        generation, arch, score.accuracy if math.isfinite(score.loss) else math.nan, loss
                    )
                    for arch, score, loss in train(generation, architectures)
                ]
                for candidate in candidates:
                    self.strategy.tell(_trial(len(found), candidate))
                    found.append(candidate)
                self._save(generation + 1, found)
                if self.on_generation is not None:
                    self.on_generation(generation, candidates)
        return ShiftingResult(tuple(found), begun, tuple(damaged))

    def _shift_each(
        self, generation: int, architectures: Sequence[Architecture]
    ) -> list[tuple[Architecture, SubnetScore, float]]:
        """Train, then score, each candidate in turn."""
        found = []
        for place, arch in enumerate(architectures):
            before = training_state.collect(self.model, {"weights": self._optimizer})
            losses = []
            for step in range(self.options.steps):
                self._optimizer.zero_grad()
                losses.append(self._backward(arch, generation, place, step))
                if not self._gradients_finite():
                    losses.append(math.nan)
                if not math.isfinite(losses[-1]):
                    break
                self._update()
            loss = math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan
            score = SubnetScore(math.nan, math.nan, math.nan)
            if math.isfinite(loss):
                (score,) = self.evaluate([arch])
            if not math.isfinite(score.loss):
                self._optimizer.state.clear()
                training_state.restore(before, self.model, {"weights": self._optimizer})
            found.append((arch, score, loss))
        return found

    def _shift_together(
        self, generation: int, architectures: Sequence[Architecture]
    ) -> list[tuple[Architecture, SubnetScore, float]]:
        """Score all candidates, average their gradients, take one step."""
        scores = self.evaluate(architectures)
        totals = [torch.zeros_like(p) for p in self._parameters]
        losses, counted = [], 0
        for place, arch in enumerate(architectures):
            buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
            self._optimizer.zero_grad()
            steps = [self._backward(arch, generation, place, step) for step in range(self.options.steps)]
            if not all(map(math.isfinite, steps)) or not self._gradients_finite():
                for buffer, value in buffers:
                    buffer.copy_(value)
                losses.append(math.nan)
                continue
            counted += 1
            losses.append(math.fsum(steps) / len(steps))
            for total, parameter in zip(totals, self._parameters, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad
        if counted:
            for total, parameter in zip(totals, self._parameters, strict=True):
                parameter.grad = total / (counted * self.options.steps)
            self._update()
        return list(zip(architectures, scores, losses, strict=True))

    def _backward(self, arch: Architecture, generation: int, place: int, step: int) -> float:
        """Add the gradient of one batch and return its loss."""
        number = (generation * self.strategy.population_size + place) * self.options.steps + step
        positions = self._batches.at(number)
        x = self.inputs[positions.to(self.inputs.device)].to(self.device)
        y = self.targets[positions.to(self.targets.device)].to(self.device)
        with explaining(x):
            logits = self.model(x, arch)
        check_labels(self._labels, logits)
        if logits.dtype != torch.float64:
            logits = logits.float()
        loss = F.cross_entropy(logits, y, label_smoothing=self.options.label_smoothing)
        if bool(loss.isfinite()):
            torch.autograd.backward(loss)
        return float(loss.detach())

    def _gradients_finite(self) -> bool:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return all(bool(n.isfinite()) for n in torch._foreach_norm(gradients)) if gradients else True

    def _update(self) -> None:
        for parameter in self._parameters:  # fused edges give zero gradients to candidates that did not run
            if parameter.grad is not None and not bool(parameter.grad.any()):
                parameter.grad = None
        self._optimizer.step()

    # ---- state -----------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        calibration, momentum = self.evaluate.calibration, self.evaluate.calibration_momentum
        options = asdict(self.options)
        if self.options.decay_vectors:  # as versions without these did, which did not record them
            del options["decay_vectors"]
        added: dict[str, Any] = {} if momentum is None else {"calibration_momentum": momentum}
        if self.strategy.mutation != "moves":
            added["mutation"] = self.strategy.mutation
        return {
            "search": "supernet shifting",
            "seed": self.seed,
            "options": options,
            **added,
            "space": self.model.space.name,
            "population": self.strategy.population_size,
            "images": training_state.digest(self.inputs, self.targets),
            "validation": training_state.digest(self.evaluate.inputs, self.evaluate.targets),
            "calibration": None if calibration is None else len(calibration),
            **self.model.settings(),
        }

    def _save(self, generations: int, found: Sequence[Candidate]) -> None:
        if self.folder is None:
            return
        history = [
            [c.generation, list(c.architecture.decisions), _number(c.accuracy), _number(c.loss)]
            for c in found
        ]
        record = {"search": self._identity(), "strategy": self.strategy.state(), "candidates": history}
        tensors = training_state.collect(self.model, {"weights": self._optimizer})
        self.folder.save(Checkpoint(generations, tensors, record))

    def _begin(self, resume: bool) -> tuple[int, list[Candidate], list[str]]:
        if self.folder is None:
            if resume:
                raise UserError("resume: needs a folder of checkpoints, got none")
            return 0, [], []
        state, damaged = self.folder.load_latest()
        if state is None:
            return 0, [], damaged
        if not resume:
            raise UserError(f"{self.folder.folder}: already holds a search; resume it, or use another folder")
        holds = f"{self.folder.folder}: holds a search"
        there, here = state.record.get("search"), self._identity()
        # What an older search does not record, and one of today does.
        added = {key: here.get(key) for key in ("mutation", "calibration_momentum")}
        training_state.check_same(there, {**here, **added}, holds)
        where = str(self.folder.path(state.step))
        training_state.restore(state.tensors, self.model, {"weights": self._optimizer}, where)
        self.strategy.load_state(state.record["strategy"])
        name = self.model.space.name
        found = [
            Candidate(g, Architecture(name, tuple(d)), *(math.nan if v is None else v for v in (a, loss)))
            for g, d, a, loss in state.record["candidates"]
        ]
        return state.step, found, damaged


def transfer(model: SharedWeights, num_classes: int, seed: int = 0) -> None:
    """Give a supernet a new classifier, N(0, 0.01^2), for another data set; all else is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "classifier"))
        model.reset_classifier(num_classes)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _trial(number: int, candidate: Candidate) -> Trial:
    fine = math.isfinite(candidate.accuracy)
    evaluation = Evaluation(
        Status.OK if fine else Status.FAILED,
        {"accuracy": candidate.accuracy},
        message="" if fine else "the loss is not finite",
    )
    return Trial(number, candidate.architecture, evaluation)
