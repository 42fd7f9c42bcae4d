"""The network of a trial as a file: what it is, its weights, or what :mod:`pynas.export` makes of it."""

from __future__ import annotations

import copy
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pynas._errors import UserError
from pynas._generators import seeded
from pynas.architecture import Architecture
from pynas.spaces import DARTSCNN
from pynas.steer._formats import formats
from pynas.steer._settings import Refused
from pynas.supernet import CellWeights, SharedWeights
from pynas.supernet.evaluation import batch_norms

if TYPE_CHECKING:
    from pynas.spaces import SearchSpace
    from pynas.steer._training import SupernetTraining
    from pynas.trial import Trial

SHARED, INITIAL = "shared", "initial"


@dataclass(frozen=True)
class Exported:
    """A file: its name, its content, its type, and where its weights are from (``shared`` or ``initial``)."""

    name: str
    content: bytes
    media_type: str
    weights: str


def export(
    space: SearchSpace,
    trial: Trial,
    format: str,
    *,
    training: SupernetTraining | None = None,
    steps: int | None = None,
    num_classes: int = 10,
    image_size: int = 32,
    in_channels: int = 3,
    seed: int = 0,
    found: Mapping[str, Any] | None = None,
) -> Exported:
    """The network of a trial.

    ``architecture`` is a JSON object, ``state_dict`` a safetensors file of the weights alone. The others are
    those of :func:`pynas.export.export`; ``pytorch`` is a zip with source, weights and card.

    Where a supernet can hand over its weights, the network has them, in plain modules of torch, with batch
    norms recalibrated on the images that train. Otherwise it is newly initialised from the seed.

    Args:
        space: Space of the architecture.
        trial: The trial.
        format: One of ``formats()``.
        training: The supernet and its images, if there is one.
        steps: Steps of training that the search counts; None for whatever the weights have had.
        num_classes: Outputs of a new network.
        image_size: Pixels along a side of its images.
        in_channels: Channels of its images.
        seed: Seed of a new network.
        found: How the trial was found, for the card.

    Raises:
        UserError: The format is unknown.
        Refused: This network cannot be written in it, or the weights are not those of the search.
    """
    if format not in formats():
        raise UserError(f"format: expected one of {', '.join(formats())}, got {format!r}")
    arch, stem = trial.architecture, f"trial-{trial.number}"
    record = {
        "space": arch.space,
        "decisions": list(arch.decisions),
        "text": space.format(arch),
        "scores": dict(trial.evaluation.scores),
    }
    if format == "architecture":
        content = json.dumps(record, indent=2).encode()
        return Exported(f"{stem}.json", content, "application/json", INITIAL)
    shared = _shared(space, arch, training, steps)
    origin = INITIAL if shared is None else SHARED
    if format == "state_dict":
        from safetensors.torch import save

        network = shared
        if network is None:
            with seeded(seed):
                network = space.build(arch, num_classes=num_classes, in_channels=in_channels)
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in network.state_dict().items()}
        metadata = {"architecture": arch.to_json(), "weights": origin}
        return Exported(f"{stem}.safetensors", save(tensors, metadata), "application/octet-stream", origin)
    sizes = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    if training is not None:
        channels, _, side = training.inputs.shape[1:]
        sizes = {"num_classes": training.num_classes, "image_size": side, "in_channels": channels}
    try:
        name, content = _written(space, arch, format, stem, model=shared, seed=seed, found=found, **sizes)
    except Exception as error:  # of torch, whatever it cannot express
        what = str(error).removeprefix("to: ").strip().splitlines() or [type(error).__name__]
        raise Refused(f"this network cannot be exported as {format}: {what[0][:300]}") from error
    kind = "application/zip" if name.endswith(".zip") else "application/octet-stream"
    return Exported(name, content, kind, origin)


def _written(
    space: SearchSpace, arch: Architecture, format: str, stem: str, **options: Any
) -> tuple[str, bytes]:
    """Name and content of one file: the network, or where that is several files all of them."""
    from pynas.export import FORMATS
    from pynas.export import export as write

    with tempfile.TemporaryDirectory(prefix="pynas-") as folder:
        target = Path(folder, stem.replace("-", "_") + FORMATS[format])  # source has to be a module's name
        made: Any = format
        files = write(space, arch, target, to=made, **options).files
        if format != "pytorch":
            return stem + FORMATS[format], target.read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.name)
        return f"{stem}.zip", packed.getvalue()


def _shared(
    space: SearchSpace, arch: Architecture, training: SupernetTraining | None, steps: int | None
) -> nn.Module | None:
    """A plain network with the weights of the supernet; None if there is none or it cannot hand them over."""
    if training is None:
        return None
    if steps is not None and training.at != steps:
        raise Refused(
            f"the shared weights are those of step {training.at}, and the search stands at step {steps}: "
            "it was cancelled during a step of training, or repeats what its store says"
        )
    plain = plain_network(space, training.model, arch, training.inputs[:4].cpu())
    if plain is None:
        return None
    recalibrate(plain, training.judge.calibration or ())
    return plain.eval()


def plain_network(
    space: SearchSpace, model: SharedWeights, arch: Architecture, example: torch.Tensor
) -> nn.Module | None:
    """One architecture of a supernet with copies of its weights, in modules of torch; None if it has no such.

    Cells are exported by their supernet. Of other supernets the layers that the architecture runs are paired
    with those of the space's own network, in order; the network is given only if it computes the same.

    Args:
        space: The space.
        model: The supernet, which is left as it is.
        arch: The architecture.
        example: Images to compare outputs with, ``[N, C, H, W]``.
    """
    if isinstance(model, CellWeights):
        network = copy.deepcopy(model.network).cpu()
        choice: Any = model.space.genotype(arch) if isinstance(model.space, DARTSCNN) else arch
        return network.export(choice)
    source = copy.deepcopy(model).cpu().eval()
    with torch.random.fork_rng(devices=[]):
        plain = space.build(arch, source.classifier().out_features, int(example.shape[1])).eval()
    theirs = [leaf for segment in source.segments(arch) for part in segment.modules for leaf in _leaves(part)]
    ours = list(_leaves(plain))
    if [type(leaf) for leaf in ours] != [type(leaf) for leaf in theirs]:
        return None
    with torch.no_grad():
        for mine, other in zip(ours, theirs, strict=True):
            given = {**dict(other.named_parameters()), **dict(other.named_buffers())}
            for name, tensor in [*mine.named_parameters(), *mine.named_buffers()]:
                if name in given and given[name].shape == tensor.shape:
                    tensor.copy_(given[name])
                elif name in given or not isinstance(mine, nn.BatchNorm2d):
                    return None
                else:  # the supernet's has no weight and bias
                    tensor.fill_(1.0 if name == "weight" else 0.0)
        if not torch.allclose(plain(example), source(example, arch), rtol=1e-3, atol=1e-4):
            return None
    return plain


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that hold tensors themselves, in the order in which they were made."""
    return (
        each
        for each in module.modules()
        if any(True for _ in each.parameters(recurse=False)) or any(True for _ in each.buffers(recurse=False))
    )


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Sequence[torch.Tensor]) -> None:
    """Give batch norms the means of batch statistics over ``batches``, as the supernet's scores have."""
    norms = batch_norms(network)
    if not norms or not batches:
        return
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for number, batch in enumerate(batches):
        for norm in norms:
            norm.training, norm.momentum = True, 1 / (number + 1)
        network(batch.cpu())
    for module, mode in modes:
        module.training = mode
