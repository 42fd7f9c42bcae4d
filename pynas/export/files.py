"""Writes a network in one of several formats, with a card that says what it is."""

from __future__ import annotations

import copy
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pynas._errors import UserError
from pynas._io.atomic import replacing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pynas.architecture import Architecture
    from pynas.spaces import SearchSpace
    from pynas.store import RunConfig
    from pynas.trial import Trial

Format = Literal["pytorch", "onnx", "torch.export", "script"]
FORMATS: dict[str, str] = {"pytorch": ".py", "onnx": ".onnx", "torch.export": ".pt2", "script": ".ts"}
"""The suffix of each format's file."""

TOLERANCE = 1e-3
"""Largest difference of a deployed network's outputs to those of the network, beside their largest value."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: The network, its weights where they are in a file of their own, and the card.
        difference: Largest difference of outputs to those of the network on the inputs of the trace.
    """

    files: tuple[Path, ...]
    difference: float


def export(
    space: SearchSpace,
    architecture: Architecture,
    path: str | Path,
    *,
    to: Format = "pytorch",
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | None = None,
    model: nn.Module | None = None,
    weights: bool = True,
    seed: int = 0,
    found: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the network of an architecture for a place without pynas, and a card beside it.

    Each file is written whole or not at all, the one called ``path`` last.

    Args:
        space: Space of the architecture.
        architecture: The architecture.
        path: File to write; its suffix is that of :data:`FORMATS`.
        to: ``pytorch``: source that needs torch alone (:func:`pynas.export.plain_source`), and its weights in
            a ``.pt`` beside it. ``onnx`` (extra ``onnx``), ``torch.export`` and
            ``script``: network and weights in one file, in evaluation mode, any batch.
        num_classes: Number of classes.
        in_channels: Channels of images.
        image_size: Side of images in pixels; None for the space's own.
        model: The network with its weights, as ``space.build`` makes it; None for one that is initialised
            with ``seed``.
        weights: Whether to write weights; without them only ``pytorch`` is possible.
        seed: Seed of the initialisation.
        found: How the architecture was found, for the card.

    Raises:
        UserError: The format is unknown or not installed, a suffix is wrong, a file cannot be written, or the
            written network does not compute what the network does.
    """
    import torch

    from pynas._generators import seeded

    target = Path(path)
    if to not in get_args(Format):
        raise UserError(f"to: expected one of {', '.join(get_args(Format))}, got {to!r}")
    if target.suffix != FORMATS[to]:
        raise UserError(f"path: expected a file that ends with {FORMATS[to]} for {to}, got {target}")
    if not weights and to != "pytorch":
        raise UserError(f"weights: a file of {to} always has weights; use to='pytorch' without them")
    text = space.format(architecture)
    trained = model is not None
    with seeded(seed):
        network = space.build(architecture, num_classes, in_channels) if model is None else model
        inputs = space.example_inputs(2, in_channels)
        if image_size is not None and inputs.dim() == 4:
            inputs = torch.rand(2, in_channels, image_size, image_size)
    dtype = next(network.parameters()).dtype
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    network = copy.deepcopy(network).cpu().eval()  # a model given may be on a GPU, and stays as it is
    kind = "given" if trained else f"as initialised with seed {seed}: not trained"
    kind = kind if weights else "none"
    card = _card(space, architecture, to, network, inputs, num_classes, kind, found)
    written: dict[Path, bytes] = {target.with_suffix(".md"): card.encode()}
    if to == "pytorch":
        from pynas.export.source import checked_source

        source, difference = checked_source(
            network, inputs, title=f"{space.name}: {text}", facts="Written by pynas export."
        )
        if weights:
            written[target.with_suffix(".pt")] = _state(source, network)
        written[target] = source.encode()
    else:
        content, difference = _deployed(to, network, inputs)
        written[target] = content
    for each, content in written.items():
        with replacing(each) as file:
            file.write(content)
    return Exported(tuple(written), difference)


def found_by(config: RunConfig, trial: Trial, trials: int) -> dict[str, Any]:
    """How a trial of a search with so many trials was found, for a card."""
    return {
        "strategy": config.strategy,
        "objectives": list(config.objectives),
        "constraints": dict(config.constraints) or "none",
        "seed": config.seed,
        "trial": f"number {trial.number:,} of {trials:,}",
        "scores": dict(trial.evaluation.scores) or "none",
        "costs": dict(trial.evaluation.metrics) or "none",
    }


def _state(source: str, network: nn.Module) -> bytes:
    """The tensors that the source's network has."""
    import torch

    scope: dict[str, Any] = {"__name__": "exported"}
    exec(compile(source, "<exported>", "exec"), scope)  # written by plain_source from the network's layers
    state = network.state_dict()
    names = scope["Network"]().state_dict()
    buffer = io.BytesIO()
    torch.save({name: state[name].detach().cpu().clone() for name in names}, buffer)
    return buffer.getvalue()


def _deployed(to: str, network: nn.Module, inputs: Tensor) -> tuple[bytes, float]:
    """The file's content, and how far its outputs are from those of the network."""
    import torch

    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporters, on what they call themselves
        expected = network(inputs)
        if to == "script":
            scripted = torch.jit.trace(network, inputs, check_trace=False)  # type: ignore[no-untyped-call]
            _check_operators({node.kind() for node in scripted.inlined_graph.nodes()}, to)
            torch.jit.save(scripted, buffer)
            buffer.seek(0)
            found = torch.jit.load(buffer)(inputs)  # type: ignore[no-untyped-call]
        elif to == "torch.export":
            program = _program(network, inputs)
            _check_operators({str(node.target).replace(".", "::", 1) for node in program.graph.nodes}, to)
            torch.export.save(program, buffer)
            buffer.seek(0)
            found = torch.export.load(buffer).module()(inputs)
        else:
            found = _onnx(network, inputs, buffer)
    difference = float((found - expected).abs().max())
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= limit:
        raise UserError(
            f"to: the file of {to} differs from the network by {difference:.3g}, more than {limit:.3g}"
        )
    return buffer.getvalue(), difference


def _program(network: nn.Module, inputs: Tensor) -> Any:
    import torch

    batch = torch.export.Dim("batch", min=1)
    try:
        return torch.export.export(network, (inputs,), dynamic_shapes=({0: batch},))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(
            f"to: torch.export cannot follow the network: {type(error).__name__}: {reason}"
        ) from error


def _check_operators(names: set[str], to: str) -> None:
    """Raise UserError if a graph calls operators that a place without pynas lacks."""
    own = sorted(name for name in names if name.startswith("pynas::"))
    if own:
        raise UserError(
            f"to: {to} would need pynas where it runs: the network calls its operator {', '.join(own)}"
        )


def _onnx(network: nn.Module, inputs: Tensor, buffer: io.BytesIO) -> Tensor:
    """Write ONNX and run it by onnxruntime."""
    import torch

    try:
        import onnx  # type: ignore[import-not-found,unused-ignore]
        import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]
        import onnxscript  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"to: onnx needs onnx, onnxruntime and onnxscript ({error.name} is not installed): "
            "pip install 'pynas-torch[onnx]' or pip install onnx onnxruntime onnxscript"
        ) from None
    program = _program(network, inputs)
    _check_operators({str(node.target).replace(".", "::", 1) for node in program.graph.nodes}, "onnx")
    made = torch.onnx.export(
        network,
        (inputs,),
        dynamo=True,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert made is not None
    content = made.model_proto.SerializeToString()
    onnx.checker.check_model(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    buffer.write(content)
    return torch.from_numpy(found)


def _card(
    space: SearchSpace,
    architecture: Architecture,
    to: str,
    network: nn.Module,
    inputs: Tensor,
    num_classes: int,
    weights: str,
    found: Mapping[str, Any] | None,
) -> str:
    """Markdown: architecture, cost, how it was found."""
    import torch

    rows = [
        ("space", space.name),
        ("architecture", f"`{space.format(architecture)}`"),
        ("decisions", f"`{json.dumps(list(architecture.decisions))}`"),
        ("inputs", f"{list(inputs.shape)[1:]}, {str(inputs.dtype).removeprefix('torch.')}"),
        ("classes", f"{num_classes:,}"),
        ("parameters", f"{sum(p.numel() for p in network.parameters()):,}"),
    ]
    if inputs.dim() == 4:
        macs = space.macs(architecture, num_classes, inputs.shape[-1], inputs.shape[1])
        rows.append(("multiply-adds of an image", f"{macs:,}"))
    rows += [("weights", weights), ("written as", f"{to}, by pynas with torch {torch.__version__}")]
    lines = [f"# {space.name} network", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_in_cell(value)} |" for name, value in rows]
    if found:
        lines += ["", "## How it was found", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_in_cell(_shown(value))} |" for name, value in found.items()]
    return "\n".join([*lines, ""])


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value))
    return str(value)
