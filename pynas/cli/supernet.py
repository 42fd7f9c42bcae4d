"""``pynas supernet``: train a small supernet on images and say which architecture it prefers."""

from __future__ import annotations

import json as json_format
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from pynas import _weights
from pynas._errors import UserError
from pynas.cli import _options, _output

if TYPE_CHECKING:
    from pynas.data import Images
    from pynas.nn import Supernet

_SPACES = ("darts", "nasbench201")


def supernet(
    space: Annotated[str, typer.Option(help="darts | nasbench201.")] = "darts",
    images: _options.Images = "digits",
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels; digits are 16 by default.", min=4)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use only so many images, drawn at random.", min=1)
    ] = None,
    held_out: Annotated[float, typer.Option(help="Fraction of images that training never sees.")] = 0.2,
    epochs: Annotated[int, typer.Option(help="Passes over the images of the weights.", min=1)] = 10,
    batch: Annotated[int, typer.Option(help="Images of a step.", min=2)] = 64,
    channels: Annotated[int, typer.Option(help="Channels of the first cells; 16 in the papers.", min=1)] = 8,
    cells: Annotated[
        int | None,
        typer.Option(help="Cells, 5 by default; of nasbench201 in each of three stages, 1.", min=1),
    ] = None,
    sampling: Annotated[str, typer.Option(help="softmax (DARTS) | gumbel | gumbel_hard (GDAS).")] = "softmax",
    learning_rate: Annotated[float, typer.Option(help="Of the weights, at the start.")] = 0.1,
    alpha_learning_rate: Annotated[float, typer.Option(help="Of the architecture parameters.")] = 3e-3,
    save: Annotated[
        Path | None, typer.Option(help="Write weights and architecture parameters here (.safetensors).")
    ] = None,
    seed: _options.Seed = 0,
    threads: _options.Threads = None,
    json: _options.Json = False,
) -> None:
    """Train a supernet: weights on one half of the images, architecture on the other, in turn (DARTS).

    Examples:
      pynas supernet
      pynas supernet --images cifar10:DIR --channels 16 --cells 8 --epochs 50 --save net.safetensors
    """
    _check(space, sampling, held_out, learning_rate, alpha_learning_rate, save)
    import torch

    from pynas import data
    from pynas.nn.training import Schedule, Step, accuracy, train_supernet

    if threads is not None:
        torch.set_num_threads(threads)
    if image_size is None and images == "digits":
        image_size = 16  # they are scans of 8x8
    source = data.load_images(images, size=image_size, limit=limit, seed=seed)
    held = round(held_out * len(source))
    if held < 1 or (len(source) - held) // 2 < batch:
        raise UserError(
            f"--batch {batch} and --held-out {held_out}: {source.name} has {len(source)} images; needs one "
            "held out and two batches to train on"
        )
    positions = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    test, training = source.take(positions[:held]), source.take(positions[held:])
    network = _build(space, source, channels, cells, seed)
    schedule = Schedule(
        epochs,
        batch,
        learning_rate,
        alpha_learning_rate=alpha_learning_rate,
        sampling=cast(Any, sampling),
    )
    per_epoch = (len(training.targets) // 2) // batch
    history: list[dict[str, float]] = []
    started = time.perf_counter()
    with _output.progress(quiet=json) as bar, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task = bar.add_task(f"{space} supernet on {source.name}", total=epochs * per_epoch, note="")

        def on_step(step: Step) -> None:
            bar.update(
                task,
                completed=step.number + 1,
                note=f"loss {step.loss:.3f}, {100 * step.accuracy:.0f} % of the batch right",
            )
            history.append({"loss": step.loss, "accuracy": step.accuracy})

        train_supernet(network, training.inputs, training.targets, schedule, seed=seed, on_step=on_step)
    seconds = time.perf_counter() - started
    found = network.derive()
    # As it was trained: on mixtures, or on one candidate of each edge.
    weights = found if sampling == "gumbel_hard" else network.sample()
    right = accuracy(network, test.inputs, test.targets, weights)
    chance = float(test.targets.bincount().max()) / held
    if save is not None:
        _weights.save(
            save, network.state_dict(), {"space": space, "architecture": found.to_json(), "images": images}
        )
    if json:
        return _output.print_json(
            {
                "architecture": json_format.loads(found.to_json()),
                "held_out_accuracy": right,
                "held_out_images": held,
                "chance": chance,
                "seconds": seconds,
                "steps": history,
                "saved": None if save is None else str(save),
            }
        )
    print(f"{len(history)} steps of {batch} images in {seconds:.0f} s")
    print(
        f"held out: {100 * right:.1f} % of {held} images right "
        f"(always the largest class: {100 * chance:.1f} %)"
    )
    print(f"found: {_text(found)}")
    if save is not None:
        print(f"saved: {save}")
    return None


def _check(
    space: str,
    sampling: str,
    held_out: float,
    learning_rate: float,
    alpha_learning_rate: float,
    save: Path | None,
) -> None:
    """What can be wrong before images are read."""
    if space not in _SPACES:
        raise UserError(f"--space: expected one of {', '.join(_SPACES)}, got {space!r}")
    from pynas.nn.supernet import Sampling

    known = [how for how in get_args(Sampling) if how != "single_path"]  # that one trains no architecture
    if sampling not in known:
        raise UserError(f"--sampling: expected one of {', '.join(known)}, got {sampling!r}")
    if not 0 < held_out < 1:
        raise UserError(f"--held-out: expected a fraction between 0 and 1, got {held_out}")
    _options.check_rates(learning_rate=learning_rate, alpha_learning_rate=alpha_learning_rate)
    if save is not None:
        _weights.check_target(save, "--save")


def _build(space: str, source: Images, channels: int, cells: int | None, seed: int) -> Supernet:
    import torch

    from pynas.nn import DARTSSupernet, NASBench201Supernet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if space == "darts":
            return DARTSSupernet(channels, cells or 5, source.num_classes)
        return NASBench201Supernet(channels, cells or 1, source.num_classes)


def _text(found: Any) -> str:
    from pynas.architecture import Architecture

    if isinstance(found, Architecture):
        from pynas import spaces

        return spaces.get(found.space).format(found)
    return str(found)
