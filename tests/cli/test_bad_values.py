"""Every option of every command refuses what is none of its values: one message, exit code 2, no work."""

from __future__ import annotations

import contextlib
import functools
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

import pynas
from pynas import cli
from pynas.architecture import Architecture
from pynas.cli import _guard
from pynas.store import RunConfig, Store
from pynas.trial import Evaluation, Status, Trial

Run = Callable[..., tuple[int, str, str]]
CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"

# What each command needs beside the option that is tried; {} is the folder of the test.
NEEDED = {
    "search": "--batch 8 --budget 1",
    "score": f"{CELL} --batch 8 --proxies zico",
    "rank": "--batch 8 --sample 3 --proxies zico --table npz:{}/table.npz",
    "supernet": "--epochs 1",
    "recurrent": "{}/words.txt",
    "embed": "--epochs 1",
    "export": f"{CELL} --no-weights",
    "steer": "--no-browser --epochs 0 --images digits",
    "replay": "{}/runs.db",
    "report": "{}/runs.db --output {}/report.html",
    "bench": "conv2d",
    "analyze weight-sharing": "--sample 3",
    "tables convert": "{}/absent {}/new.npz",
    "tables info": "{}/table.npz",
    "hardware build": "nasbench201 {}/new.json",
    "hardware show": "{}/absent.json",
    "hardware predict": "{}/absent.json",
}
# Arguments that stand at this place of NEEDED.
PLACE = {
    "score ARCHITECTURE": 0, "recurrent TEXT": 0, "replay STORE": 0, "report STORE": 0, "bench PATTERN": 0,
    "export SOURCE": 0,
    "tables convert SOURCE": 0, "tables convert OUTPUT": 1, "tables info FILE": 0,
    "hardware build SPACE": 0, "hardware build OUTPUT": 1,
}  # fmt: skip
# Options whose values mean something only beside another one.
BESIDE = {"--metric": "--table npz:{}/table.npz", "--dataset": "--table npz:{}/table.npz"}
# What takes any text; "bench no-such-case" is in test_cli.py.
# What steer's evaluator gives is known only when it has evaluated.
ANY_TEXT = {"hardware build --name", "steer --name", "steer --objective", "bench PATTERN"}
TEXTS = ("no such thing \x1b[31m", "", "no:such,thing=1")
NUMBERS = {int: ("1.5", "", "1" + 30 * "0"), float: ("x", "nan", "-inf", "-1")}


def walk(app: typer.Typer, words: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """(command, option, type, its Typer description) of everything that a command line may set."""
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from walk(group.typer_instance, f"{words}{group.name} ")
    for command in app.registered_commands:
        hints = get_type_hints(command.callback, include_extras=True)
        called = _guard.options(command.callback)
        for name, option in called.items():
            kind, about = typing.get_args(hints[name])[:2]
            yield f"{words}{command.name}", option, kind, about


def is_of(kind: Any, wanted: type) -> bool:
    return kind is wanted or wanted in typing.get_args(kind)


def bad_values(name: str, kind: Any, about: Any, folder: Path) -> tuple[str, ...]:
    if kind is bool:
        return ("x",)
    for number, values in NUMBERS.items():
        if is_of(kind, number):
            least = getattr(about, "min", None)
            return values if least is None else (*values, str(least - 1))
    if is_of(kind, Path):
        return (f"{folder}/words.txt/below.html",)  # where no file can be; test_command_outputs.py has more
    if name.endswith("store"):
        return (f"{folder}/words.txt/below.db", "")
    return TEXTS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files to read, where nothing that takes time may begin."""
    import numpy as np

    from pynas import bench, embedding, evaluate
    from pynas.hardware.build import Builder
    from pynas.steer import page
    from pynas.supernet import Trainer, language_training

    def begin(*arguments: object, **options: object) -> None:
        raise AssertionError("work has begun")

    def serve(make: Callable[[], Any], *arguments: object, **options: object) -> None:
        with contextlib.closing(make()):  # as the page would
            begin()

    monkeypatch.setattr(page, "serve", serve)
    images = functools.cache(pynas.data.load_images)
    monkeypatch.setattr(pynas.data, "load_images", images)
    for owner, name in (
        (evaluate.ProxyEvaluator, "__call__"), (pynas, "score"), (Trainer, "train"), (bench, "measure"),
        (language_training, "train_language_model"), (embedding.Arch2Vec, "train"),
        (Builder, "_find"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, begin)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("a b c d\n" * 500)
    space = pynas.spaces.get("nasbench201")
    strings = [space.format(space.from_index(i)) for i in range(9)]
    np.savez(tmp_path / "table.npz", arch_str=strings, test200_cifar10=np.arange(9.0))
    with Store(tmp_path / "runs.db") as store:
        run = store.start(RunConfig("toy", "random", 0, ("a",), {}, {}), {}, resume=False)
        store.append(run, Trial(0, Architecture("toy", (1,)), Evaluation(Status.OK, {"a": 1.0})))
    return tmp_path


EVERYTHING = list(walk(cli.app))


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({command for command, *_ in EVERYTHING}))
def test_every_option_refuses_bad_values(run_pynas: Run, folder: Path, command: str) -> None:
    wrong = []
    for _, option, kind, about in (entry for entry in EVERYTHING if entry[0] == command):
        if f"{command} {option}" in ANY_TEXT:
            continue
        for value in bad_values(option, kind, about, folder):
            words = [word.format(folder) for word in NEEDED.get(command, "").split()]
            if option.startswith("--"):
                words += [word.format(folder) for word in BESIDE.get(option, "").split()]
                words.append(f"{option}={value}")
            elif (place := PLACE.get(f"{command} {option}")) is not None:
                words[place] = value
            else:
                words.append(value)
            try:
                code, out, err = run_pynas(*command.split(), *words)
            except BaseException as error:
                wrong.append(f"{option}={value!r}: {type(error).__name__}: {error}")
                continue
            if code != 2 or out or "Traceback" in err or "\x1b" in err:
                wrong.append(f"{option}={value!r}: exit code {code}: {err or out}"[:300])
    assert not wrong, "\n".join(wrong)
