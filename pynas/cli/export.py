"""``pynas export``: a found network as files that need no pynas."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pynas._errors import UserError
from pynas._io.atomic import check_output
from pynas.cli import console, flags, specs

if TYPE_CHECKING:
    from pynas.architecture import Architecture
    from pynas.spaces import SearchSpace


def export(
    source: Annotated[
        str, typer.Argument(help="Store of a search (its best trial), or an architecture of --space.")
    ],
    to: Annotated[str, typer.Option(help="pytorch | onnx | torch.export | script.")] = "pytorch",
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: network, with the suffix of the format.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Space of the architecture; of a store, only where it cannot tell.")
    ] = None,
    run: Annotated[
        int | None, typer.Option(help="Number of the run in the store; default: the newest.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Number of the trial; default: the best.", min=0)] = None,
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)] = 10,
    channels: Annotated[int, typer.Option(help="Channels of images.", min=1)] = 3,
    image_size: Annotated[int | None, typer.Option(help="Side of images in pixels.", min=1)] = None,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Write weights; only pytorch can do without.")
    ] = True,
    state: Annotated[
        Path | None, typer.Option(help="Trained weights of the network: a state dict (.pt or .safetensors).")
    ] = None,
    seed: flags.Seed = 0,
    json: flags.Json = False,
) -> None:
    """Write a network as PyTorch source, ONNX, torch.export or TorchScript, and a card that describes it.

    Without --state the weights are those of an initialisation, and the card says so.

    Examples:
      pynas export runs.db --output found.py
      pynas export runs.db --to onnx --state trained.pt --output found.onnx
      pynas export '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|'
    """
    from pynas.export import FORMATS
    from pynas.export import export as write

    if to not in FORMATS:
        raise UserError(f"--to: expected one of {', '.join(FORMATS)}, got {to!r}")
    target = Path(f"network{FORMATS[to]}") if output is None else output
    if target.suffix != FORMATS[to]:
        raise UserError(f"--output: expected a file that ends with {FORMATS[to]} for {to}, got {target}")
    beside = {"card": target.with_suffix(".md")}
    if to == "pytorch" and weights:
        beside["weights"] = target.with_suffix(".pt")
    for name, path in {"network": target, **beside}.items():
        check_output(path, "--output")
        for given in (Path(source), state):
            if given is not None and os.path.realpath(given) == os.path.realpath(path):
                raise UserError(
                    f"--output: its {name} would replace {given}, which is read; use another name"
                )
    opened, architecture, found = _chosen(source, space, run, trial)
    model = None
    if state is not None:
        model = opened.build(architecture, classes, channels)
        model.load_state_dict(_state(state, model.state_dict()))
    written = write(
        opened,
        architecture,
        target,
        to=cast(Any, to),
        num_classes=classes,
        in_channels=channels,
        image_size=image_size,
        model=model,
        weights=weights,
        seed=seed,
        found=found,
    )
    if json:
        return console.print_json(
            {"files": [str(path) for path in written.files], "difference": written.difference}
        )
    for path in written.files:
        console.say(f"wrote {path}")
    return None


def _chosen(
    source: str, space: str | None, run: int | None, trial: int | None
) -> tuple[SearchSpace, Architecture, dict[str, Any] | None]:
    """Space and architecture, and how it was found if a store tells."""
    if not (Path(source).is_file() or "://" in source):
        if trial is not None or run is not None:
            raise UserError(f"{source}: no such store, so there is no --run and no --trial of it")
        opened = specs.open_space("nasbench201" if space is None else space)
        return opened, opened.parse(source), None
    from pynas.export import found_by
    from pynas.report.search import registered_space
    from pynas.run.objectives import summary
    from pynas.store import Store

    with Store(source, read_only=True) as store:
        chosen = store.run(run)
        made = specs.open_space(space) if space is not None else registered_space(chosen)
        if made is None:
            raise UserError(f"{source}: run {chosen.id} is of a space of your own; name it by --space")
        trials = store.trials(chosen, check=made.check)
    if trial is not None:
        if trial >= len(trials):
            raise UserError(f"--trial {trial}: run {chosen.id} has trials 0..{len(trials) - 1}")
        best = trials[trial]
    else:
        known = ("params", "flops", "activations", "memory", "intensity")
        top = summary(trials, chosen.config.objectives, known)[0]
        if top is None:
            raise UserError(f"{source}: run {chosen.id} has no trial that succeeded; choose one by --trial")
        best = top
    return made, best.architecture, found_by(chosen.config, best, len(trials))


def _state(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """A state dict of a file, which must fit."""
    from pynas._io import weights as files

    if path.suffix == files.SUFFIX:
        state = files.load(path, checked=False)[0]
    else:
        import torch

        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"--state {path}: not a readable state dict: {error}") from error
        if not isinstance(state, dict):
            raise UserError(f"--state {path}: expected a state dict, got {type(state).__name__}")
    files.check_fits(state, wanted, f"--state {path}: of another network")
    return state
