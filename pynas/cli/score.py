"""``pynas score``: score one network by proxies, from a space or from the user's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pynas import _named
from pynas._errors import UserError
from pynas.cli import console, flags, specs

if TYPE_CHECKING:
    from pynas.evaluate import Score


def score(
    architecture: Annotated[str | None, typer.Argument(help="Architecture string of --space.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="package.module:factory of a model, called without arguments, instead of ARCHITECTURE."
        ),
    ] = None,
    proxies: Annotated[str, typer.Option(help=flags.PROXIES_HELP)] = "zico,params,flops",
    space: flags.Space = "nasbench201",
    images: flags.Images = None,
    image_size: flags.ImageSize = None,
    classes: flags.Classes = None,
    batch: flags.Batch = None,
    text: flags.Text = None,
    steps: flags.Steps = 35,
    precision: flags.Precision = "float32",
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
    weights: Annotated[
        str,
        typer.Option(help="any | published: sum over all weights, or those of Conv2d and Linear modules."),
    ] = "any",
    layers: Annotated[bool, typer.Option("--layers", help="Show what each layer contributes.")] = False,
    report: flags.OutputFile = None,
    inline: flags.Inline = False,
    json: flags.Json = False,
) -> None:
    """Score one untrained network. Exit code 1 if a score failed.

    Examples:
      pynas score '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|'
      pynas score --model torchvision.models:resnet18 --images cifar10:cifar-10-batches-py --layers
      pynas score --model torchvision.models:resnet18 --proxies snip,synflow --report layers.html
      pynas score DARTS_V2 --space darts_rnn:features=200 --text ptb.train.txt --batch 16
    """
    if (architecture is None) == (model is None):
        raise UserError("give either an architecture string or --model package.module:factory")
    flags.check_outputs(report=report)
    names = flags.comma_separated(specs.own_proxies(proxies))
    if not names:
        raise UserError("--proxies: expected at least one; see 'pynas proxies'")
    flags.check_choice(weights, "--weights", ("any", "published"))

    import torch

    import pynas
    from pynas import evaluate
    from pynas import proxies as proxy_registry
    from pynas._generators import seeded

    flags.check_choice(precision, "--precision", evaluate.PRECISIONS)
    for name in names:
        proxy_registry.get(name)  # report a typo before loading the images
    if threads is not None:
        torch.set_num_threads(threads)
    # Parse the architecture before the images are read, for the same reason.
    chosen = None if architecture is None else specs.open_space(space)
    parsed = None if chosen is None or architecture is None else chosen.parse(architecture)
    factory = None if model is None else load_factory(model)
    options = specs.DataOptions(images, image_size, classes, batch, seed, text, steps)
    source = specs.load(chosen, options)
    with seeded(seed):
        if chosen is not None and parsed is not None:
            channels = 3 if text is not None else int(source.inputs.shape[1])
            network = chosen.build(parsed, num_classes=source.num_classes, in_channels=channels)
        else:
            assert factory is not None
            network = factory()
    if not isinstance(network, torch.nn.Module):
        raise UserError(
            f"--model {model}: expected a function that returns a torch.nn.Module, "
            f"got {type(network).__name__}"
        )
    scores = pynas.score(
        network,
        source.inputs,
        source.targets,
        proxies=names,
        precision=cast(Any, precision),
        seed=seed,
        weights=cast(Any, weights),
    )
    if report is not None:
        from pynas.report import LayerScore, write_layers_report

        found = {name: LayerScore(s.value, s.layers, s.message) for name, s in scores.items()}
        facts = {"data": source.name, "precision": precision, "seed": str(seed)}
        write_layers_report(report, found, network=str(architecture or model), facts=facts, inline=inline)
    failed = [name for name, s in scores.items() if s.status in ("failed", "non_finite")]
    if json:
        console.print_json(
            {
                name: {
                    "value": s.value,
                    "status": str(s.status),
                    "message": s.message,
                    "seconds": s.seconds,
                    "coverage": s.coverage,
                    "layers": dict(s.layers),
                }
                for name, s in scores.items()
            }
        )
        return _end(failed)
    console.print_table(
        f"{architecture or model} on {source.name}, {precision}",
        ["proxy", "score", "status", "coverage", "seconds"],
        [
            (
                name,
                s.value if name not in failed else None,
                _status(s),
                f"{s.coverage:.0%}" if name not in failed else None,
                s.seconds,
            )
            for name, s in scores.items()
        ],
    )
    if layers:
        for name, s in scores.items():
            if s.layers:
                console.print_table(f"{name} by layer", ["layer", "contribution"], list(s.layers.items()))
    if report is not None:
        console.say(f"report: {report}")
    return _end(failed)


def _status(score: Score) -> str:
    word = "failed" if score.status == "non_finite" else score.status
    return f"{word}: {score.message}" if score.message else word


def _end(failed: list[str]) -> None:
    """Exit code 1 if a score failed."""
    if failed:
        raise typer.Exit(1)


def load_factory(text: str) -> Any:
    """The function of ``--model``; UserError says which part is wrong."""
    factory = _named.load(text, "--model")
    if not callable(factory):
        raise UserError(
            f"--model {text}: expected a function that returns a torch.nn.Module, got "
            f"{type(factory).__name__}"
        )
    return factory
