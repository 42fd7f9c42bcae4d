"""``pynas supernet``: train a small supernet on images and say which architecture it prefers."""

from __future__ import annotations

import json as json_format
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pynas import _named
from pynas._errors import UserError
from pynas._io import weights
from pynas._io.atomic import check_output_folder
from pynas._plural import counted
from pynas.cli import console, flags, specs

if TYPE_CHECKING:
    from torch import Tensor

    from pynas.data import Batch, Images
    from pynas.nn import Supernet
    from pynas.spaces import SearchSpace
    from pynas.supernet import Method, SharedWeights, TrainingStep

_SPACES = ("darts", "nasbench201", "spos_shufflenet")
_MIXTURES = ("softmax", "gumbel", "gumbel_hard", "gumbel_hard_published")
_PATHS = ("uniform", "fair", "flops")
_CALIBRATION = 2048  # images to recalibrate the batch norms of an architecture with


def supernet(
    space: Annotated[
        str,
        typer.Option(
            help="darts | nasbench201 | spos_shufflenet (paths only) | template:FILE (or a ready one's "
            "name) | package.module:object, a space that has a supernet."
        ),
    ] = "darts",
    images: flags.Images = None,
    classes: flags.Classes = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels; digits are 16 by default.", min=4)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use at most so many images, drawn at random.", min=1)
    ] = None,
    held_out: Annotated[float, typer.Option(help="Fraction of images that training never sees.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Passes over the images that train the weights.", min=1)] = 10,
    batch: Annotated[
        int | None, typer.Option(help="Images in a step. Default: 64, or what the images give.", min=2)
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(
            help="Channels of the first cells; 16 in the papers, 8 by default; not of templates.", min=1
        ),
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option(help="Cells; default: 5, for nasbench201 1 in each of its three stages.", min=1),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="Mixtures: softmax (DARTS) | gumbel | gumbel_hard (GDAS) | gumbel_hard_published (as in its "
            "code). Paths: uniform (SPOS) | fair (FairNAS) | flops (uniform over costs). Default: softmax; "
            "uniform for spaces of your own."
        ),
    ] = None,
    order: Annotated[
        int,
        typer.Option(help="Order of the architecture gradient; 2 is second-order DARTS.", min=1, max=2),
    ] = 1,
    candidates: Annotated[
        int, typer.Option(help="Paths: random architectures to evaluate at the end.", min=1)
    ] = 20,
    crop: flags.Crop = 0,
    flip: flags.Flip = False,
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate of the weights.")] = 0.1,
    alpha_learning_rate: Annotated[
        float, typer.Option(help="Learning rate of the architecture parameters.")
    ] = 3e-3,
    precision: Annotated[str, typer.Option(help="float32 | bfloat16, of the forward pass.")] = "float32",
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of checkpoints, created if absent.")] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between two checkpoints.", min=1)] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume bit for bit from the last intact checkpoint.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Log loss, accuracy and rate here (the 'tensorboard' extra).")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write weights and architecture parameters here (.safetensors).")
    ] = None,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    json: flags.Json = False,
) -> None:
    """Train a supernet: weights and architecture alternately (DARTS), or weights on sampled paths (SPOS).

    Under torchrun each process takes its part of every batch.

    Examples:
      pynas supernet
      pynas supernet --images cifar10:DIR --channels 16 --cells 8 --crop 4 --flip --save net.safetensors
      pynas supernet --space nasbench201 --sampling uniform --checkpoint run1 --resume
      pynas supernet --space template:mine.json --sampling fair
      torchrun --nproc-per-node 2 -m pynas.cli supernet --sampling fair
    """
    template = specs.open_template(space, channels=channels, cells=cells)
    own = _own_space(space, channels=channels, cells=cells) if template is None else None
    sampling = ("softmax" if own is None else "uniform") if sampling is None else sampling
    _check(space, sampling, order, precision, held_out, save)
    flags.check_rates(learning_rate=learning_rate, alpha_learning_rate=alpha_learning_rate)
    if checkpoint is not None:
        check_output_folder(checkpoint, "--checkpoint")
    if tensorboard is not None:
        check_output_folder(tensorboard, "--tensorboard", parents=True)
    if resume and checkpoint is None:
        raise UserError("--resume: needs --checkpoint DIR")
    import torch

    from pynas import data
    from pynas.supernet import SinglePath, Trainer, TrainingOptions, distributed
    from pynas.supernet.tensorboard import open_log

    if threads is not None:
        torch.set_num_threads(threads)
    images = specs.images_or_digits(images)
    if image_size is None and images == specs.DIGITS:  # they are scans of 8x8
        image_size = 16 if template is None else template.image_size
    source = data.load_images(images, size=image_size, limit=limit, seed=seed, classes=classes)
    if template is not None:
        template.check_image_size(int(source.inputs.shape[-1]))
    held = round(held_out * len(source))
    parts = 2 if sampling in _MIXTURES else 1
    batch = batch or max(2, min(64, (len(source) - held) // parts))
    if held < 1 or (len(source) - held) // parts < batch:
        raise UserError(
            f"--batch {batch} and --held-out {held_out}: {source.name} has {counted(len(source), 'image')}; "
            f"expected at least one held out and {'two batches' if parts == 2 else 'a batch'} to train on"
        )
    positions = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    test, training = source.take(positions[:held]), source.take(positions[held:])
    model = _build(template or own or space, source, channels or 8, cells, seed)
    _check_mixture(model, sampling)
    method = _method(model, sampling, order, alpha_learning_rate, int(source.inputs.shape[-1]))
    options = TrainingOptions(
        epochs, batch_size=batch, learning_rate=learning_rate, precision=cast(Any, precision)
    )
    started = time.perf_counter()
    with (
        distributed.torchrun(),
        console.progress(quiet=json or distributed.rank() > 0) as bar,
        open_log(tensorboard if distributed.rank() == 0 else None) as log,
    ):

        def on_step(step: TrainingStep) -> None:
            if not bar.tasks:  # only once there is a step: a resumed training may have none left
                bar.add_task(
                    f"{space} supernet on {source.name}", total=step.total, completed=step.number, note=""
                )
            bar.update(
                bar.task_ids[0],
                completed=step.number + 1,
                note=f"loss {step.loss:.3f}, batch accuracy {100 * step.accuracy:.0f} %",
            )
            log(step)

        trainer = Trainer(
            model,
            training.inputs,
            training.targets,
            method,
            options,
            seed=seed,
            checkpoints=checkpoint,
            checkpoint_every=checkpoint_every,
            transform=flags.transform(crop, flip, training.inputs),
            on_step=on_step,
        )
        result = trainer.train(resume=resume)
        first = distributed.rank() == 0
    if not first:
        return None  # the first process reports for all
    seconds = time.perf_counter() - started
    judged: list[tuple[float, Any]] = []
    if isinstance(method, SinglePath):
        judged = _judge(model, training.inputs, test, candidates, seed)
        right, found = judged[0]
    else:
        right, found = _derived(model, sampling, test.inputs, test.targets)
    chance = float(test.targets.bincount().max()) / held
    if save is not None:
        network = getattr(model, "network", model)
        metadata = {"space": space, "architecture": found.to_json(), "images": images}
        metadata |= {} if template is None else {"template": template.template}
        weights.save(save, network.state_dict(), metadata)
    if json:
        record = {
            "architecture": json_format.loads(found.to_json()),
            "held_out_accuracy": right,
            "held_out_images": held,
            "chance": chance,
            "seconds": seconds,
            "steps": [
                {"loss": loss, "accuracy": accuracy}
                for loss, accuracy in zip(result.losses, result.accuracies, strict=True)
            ],
            "resumed_from": result.resumed_from,
            "restarts": result.restarts,
            "saved": None if save is None else str(save),
        }
        if judged:
            record["candidates"] = [
                {"architecture": json_format.loads(arch.to_json()), "held_out_accuracy": accuracy}
                for accuracy, arch in judged
            ]
        return console.print_json(record)
    if result.resumed_from:
        console.say(f"resumed from step {result.resumed_from}")
    console.say(f"{counted(len(result.losses), 'step')} of {counted(batch, 'image')} in {seconds:.0f} s")
    of = f", the best of {counted(len(judged), 'random architecture')}" if judged else ""
    console.say(
        f"held-out accuracy {100 * right:.1f} % on {counted(held, 'image')} "
        f"(always the largest class: {100 * chance:.1f} %){of}"
    )
    console.say(f"found: {_text(found, model)}")
    if save is not None:
        console.say(f"saved: {save}")
    return None


def _check(space: str, sampling: str, order: int, precision: str, held_out: float, save: Path | None) -> None:
    """Check the options before images are read."""
    if space not in _SPACES and space.partition(":")[0] != "template" and not _named.is_path(space):
        raise UserError(
            f"--space: expected one of {', '.join(_SPACES)}, template:FILE or package.module:object, "
            f"got {space!r}"
        )
    if sampling not in _MIXTURES + _PATHS:
        raise UserError(f"--sampling: expected one of {', '.join(_MIXTURES + _PATHS)}, got {sampling!r}")
    if space == "spos_shufflenet" and sampling not in _PATHS:
        raise UserError(f"--sampling: {space} has no mixtures, expected one of {', '.join(_PATHS)}")
    if order == 2 and sampling != "softmax":
        raise UserError(f"--order: 2 needs --sampling softmax, got {sampling}")
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision: expected float32 or bfloat16, got {precision!r}")
    if not 0 < held_out < 1:
        raise UserError(f"--held-out: expected a fraction between 0 and 1, got {held_out}")
    if save is not None:
        weights.check_target(save, "--save")


def _own_space(text: str, **refused: object) -> SearchSpace | None:
    """The space of ``package.module:object``; None if ``text`` is no such thing."""
    if not _named.is_path(text) or text.partition(":")[0] in _SPACES:
        return None
    for option, value in refused.items():
        if value is not None:
            raise UserError(f"--{option}: {text} says what it has, got {value}; leave it out")
    found = specs.open_space(text)
    if not found.example_inputs(1).is_floating_point():
        raise UserError(f"--space {text}: {found.name} reads words, not images; see 'pynas recurrent'")
    return found


def _check_mixture(model: SharedWeights, sampling: str) -> None:
    """Raise UserError for a mixture of paths in a supernet that has none."""
    from pynas.nn import Supernet

    if sampling in _MIXTURES and not isinstance(getattr(model, "network", None), Supernet):
        raise UserError(
            f"--sampling: the supernet of {model.space.name} has no mixtures, expected one of "
            f"{', '.join(_PATHS)}, got {sampling!r}"
        )


def _build(
    space: str | SearchSpace, source: Images, channels: int, cells: int | None, seed: int
) -> SharedWeights:
    from pynas._generators import seeded
    from pynas.nn import DARTSSupernet, NASBench201Supernet
    from pynas.supernet import CellWeights, SPOSSupernet, build

    with seeded(seed):
        if not isinstance(space, str):
            return build(space, source.num_classes, int(source.inputs.shape[1]))
        if space == "spos_shufflenet":
            return SPOSSupernet(None, source.num_classes, width=channels / 16)
        if space == "darts":
            return CellWeights(DARTSSupernet(channels, cells or 5, source.num_classes))
        return CellWeights(NASBench201Supernet(channels, cells or 1, source.num_classes))


def _method(
    model: SharedWeights, sampling: str, order: int, alpha_learning_rate: float, image_size: int
) -> Method:
    from pynas.supernet import Differentiable, FairSampler, FlopsBinSampler, SinglePath, UniformSampler

    if sampling == "uniform":
        return SinglePath(UniformSampler(model.space))
    if sampling == "fair":
        return SinglePath(FairSampler(model.space))
    if sampling == "flops":
        return SinglePath(FlopsBinSampler(model.space, image_size=image_size))
    return Differentiable(cast(Any, sampling), order=cast(Any, order), learning_rate=alpha_learning_rate)


def _derived(model: SharedWeights, sampling: str, inputs: Tensor, targets: Tensor) -> tuple[float, Any]:
    """Accuracy of the supernet as it was trained, and the architecture of the strongest candidates."""
    from pynas.supernet import score_network

    network = cast("Supernet", model.network).eval()
    found = network.derive()
    weights = found if sampling.startswith("gumbel_hard") else network.sample()
    return score_network(lambda x: network(x, weights), inputs, targets).accuracy, found


def _judge(
    model: SharedWeights, training: Tensor, test: Batch, count: int, seed: int
) -> list[tuple[float, Any]]:
    """Accuracies of ``count`` random architectures, best first; training images calibrate batch norms."""
    import random

    from pynas.supernet import SubnetEvaluator

    seen = training[:_CALIBRATION]
    # Batches of equal size: the statistics of a last batch of two images would be poor.
    calibration = seen.tensor_split(max(1, round(len(seen) / 256)))
    evaluate = SubnetEvaluator(model, test.inputs, test.targets, calibration=calibration)
    rng = random.Random(seed)
    drawn = [model.space.sample(rng) for _ in range(count)]
    judged = [(score.accuracy, arch) for score, arch in zip(evaluate(drawn), drawn, strict=True)]
    return sorted(judged, key=lambda pair: -pair[0])


def _text(found: Any, model: SharedWeights) -> str:
    from pynas.architecture import Architecture

    return model.space.format(found) if isinstance(found, Architecture) else str(found)
