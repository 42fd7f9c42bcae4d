"""``pynas steer``: a page on which a search is steered; ``pynas replay``: the same without the page."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pynas._errors import UserError
from pynas._io.files import open_regular
from pynas._plural import counted
from pynas.cli import console, flags, specs
from pynas.cli.hardware_specs import parse_constraints
from pynas.cli.search import parse_option
from pynas.store import check_location
from pynas.trial import Trial

_SHORTEST_TOKEN = 16


_OF_THE_RUN = (
    *("space", "evaluator", "images", "image_size", "epochs", "batch", "learning_rate", "strategy", "option"),
    *("objective", "constraint", "budget", "table", "metric", "dataset", "seed", "device"),
)
"""Options that a stored run has settled, so that they cannot be given with --resume."""


def steer(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Option(help="Search space, NAME:option=value,...; default: a small nasbench201."),
    ] = None,
    evaluator: Annotated[
        str,
        typer.Option(help="supernet: shared weights, trained here | table: known accuracies | PROXY,..."),
    ] = "supernet",
    images: flags.Images = None,
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels; digits are 16 by default.", min=4)
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training at the start; 0 waits for you.", min=0)] = 3,
    batch: Annotated[int, typer.Option(help="Images in a step, or that proxies score with.", min=2)] = 64,
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate of a phase of training.")] = 0.1,
    strategy: flags.Strategy = "evolution",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the strategy, such as population_size=20.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="What to maximise, -COST to minimise; repeatable.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="Upper bound on a cost: 'flops<100e6'; repeatable.")
    ] = None,
    budget: Annotated[int, typer.Option(help="Number of trials.", min=1)] = 100,
    table: flags.Table = None,
    metric: flags.Metric = None,
    dataset: flags.Dataset = None,
    store: Annotated[
        str | None, typer.Option(help="Keep trials and actions in this SQLite file or database URL.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the newest run in --store.")] = False,
    device: Annotated[str, typer.Option(help="cpu | cuda: where it is computed.")] = "cpu",
    points: Annotated[int, typer.Option(help="Architectures on the map.", min=2, max=20_000)] = 2000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any that is free.", min=0, max=65535)] = 0,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the secret of the page's address, 16 characters or more.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Name of this machine in addresses, with --host; repeatable.")
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    seed: flags.Seed = 0,
    threads: flags.Threads = None,
) -> None:
    """Steer a search on a page of this machine: watch it, and change its space while it runs.

    Everything that you do is kept in --store, so that 'pynas replay' gives the same trials again.

    Examples:
      pynas steer
      pynas steer --space proxylessnas --images folder:DIR --device cuda --store runs.db
      pynas steer --evaluator zico --space nasbench201 --store runs.db
      pynas steer --store runs.db --resume
    """
    from pynas.steer.page import steer as begin
    from pynas.steer.server import is_loopback

    flags.check_rates(learning_rate=learning_rate)
    if store is not None:
        check_location(store, "--store")
    if resume and store is None:
        raise UserError("--resume needs --store: the file that the run was kept in")
    if resume:
        _check_resumed(context)
    for named, value in (("--evaluator", evaluator), ("--table", table)):
        if value == "":
            raise UserError(f"{named}: expected a name, got an empty text")
    token = None if token_file is None else _token(token_file)
    if not is_loopback(host) and token is None:
        raise UserError(f"--host {host}: others can reach it, so it needs --token-file FILE with a secret")
    _prepare(device, threads)
    setup: dict[str, Any] = (
        {}
        if resume
        else {
            "images": specs.DIGITS
            if images is None and evaluator == "table"
            else specs.images_or_digits(images),
            "image_size": image_size,
            "epochs": epochs,
            "batch": batch,
            "learning_rate": learning_rate,
            "strategy": strategy,
            "strategy_options": dict(parse_option(text) for text in option or []),
            "objectives": tuple(objective or ()),
            "constraints": parse_constraints(constraint or []),
            "table": table,
            "metric": metric,
            "dataset": dataset,
            "seed": seed,
            "device": device,
        }
    )
    page = begin(
        None if space is None else specs.open_space(space),
        evaluator,
        budget=budget,
        store=store,
        resume=resume,
        points=points,
        host=host,
        port=port,
        token=token,
        names=tuple(name or ()),
        **setup,
    )
    with page:
        try:
            console.say(f"pynas steer: {page.url}")
            console.say("Ctrl-C ends it; closing the page does not")
            if browser:
                page.open()
            while page.state()["search"]["status"] != "cancelled":
                time.sleep(0.5)
        except KeyboardInterrupt:  # as soon as somebody may have read the line about Ctrl-C
            console.say("ended")
    if page.steering.is_busy:
        # What runs is thrown away, and the store holds all else; Python would wait for it, hours perhaps.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _check_resumed(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if name in _OF_THE_RUN and source is not None and source.name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{flag}: --resume goes on with what the store says, whatever {flag} is; leave it out, or "
                "change it on the page"
            )


def _prepare(device: str, threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device: expected cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; use cpu")


def _token(path: Path) -> str:
    try:
        with open_regular(path) as file:
            text = file.read(4096).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise UserError(f"--token-file {path}: cannot be read: {error.strerror}") from error
    if len(text) < _SHORTEST_TOKEN or not all(c.isalnum() or c in "-_" for c in text):
        raise UserError(
            f"--token-file {path}: expected at least {_SHORTEST_TOKEN} letters, digits, - and _ on one line"
        )
    return text


def replay(
    store: Annotated[str, typer.Argument(help="SQLite file or database URL that 'pynas steer' wrote.")],
    run: Annotated[int | None, typer.Option(help="Number of the run; default: the newest steered.")] = None,
    threads: flags.Threads = None,
    json: flags.Json = False,
) -> None:
    """Repeat a steered search without a page: the same actions at the same trials give the same trials.

    Exit code 1 if a trial is another one, or has another score.

    Example: pynas replay runs.db
    """
    from pynas.steer.replaying import replay as repeated

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with console.progress(quiet=json) as bar:
        task = bar.add_task("replay", total=None, note="")

        def on_trial(trial: Trial) -> None:
            bar.update(task, completed=trial.number + 1)

        found = repeated(store, run, on_trial=on_trial)
    if json:
        console.print_json(
            {
                "run": found.run.id,
                "trials": len(found.stored),
                "actions": len(found.actions),
                "same": found.is_same,
                "differing": list(found.differing),
                "settings": list(found.settings),
            }
        )
    else:
        done = f"{counted(len(found.stored), 'trial')} and {counted(len(found.actions), 'action')}"
        verdict = "the same again" if found.is_same else f"{len(found.differing):,} not the same"
        console.say(f"run {found.run.id}: {done}: {verdict}")
        for difference in found.settings:
            console.say(f"  {difference}")
    if not found.is_same:
        raise typer.Exit(1)
