"""``--space template:FILE`` in commands, in searches that are resumed, and in reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import pynas
from pynas.cli.specs import open_space
from pynas.hardware import LatencyTable
from pynas.report.search import registered_space
from pynas.spaces import TemplateSpace, template
from pynas.spaces.template import Block
from pynas.store import Store
from tests.spaces.designs import THIN

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a template, of=mine.json"
    template.save(THIN, path)
    return path


def test_spaces_of_files(file: Path) -> None:
    space = open_space(f"template:{file}")
    assert isinstance(space, TemplateSpace)
    assert space.design == THIN
    assert open_space("template").size == open_space("template:example").size == 1200
    assert open_space("template: digits").size == 64


def test_files_that_are_none(run_pynas: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    code, _, error = run_pynas("spaces", f"template:{path}")
    assert code == 2
    assert f"{path}: no such file; pynas.spaces.template.save writes one" in error
    path.write_text(json.dumps(template.to_record(THIN.set(1, 1, channels=3))))
    for command in (("spaces",), ("search", "--space"), ("supernet", "--space")):
        code, _, error = run_pynas(*command, f"template:{path}")
        assert code == 2
        assert len(error.strip().splitlines()) == 1
        assert (
            "bad.json: not a template: layers[1] 'down', alternatives[1] inverted_c3_s2_e2: channels:"
            in error
        )
    code, _, error = run_pynas("supernet", "--space", "template:digits", "--cells", 3)
    assert (code, "--cells: the template says what it has, got 3; leave it out" in error) == (2, True)
    thick = template.Template((Block("conv", kernel=9, padding="valid"),), image_size=16)
    template.save(thick, path)
    code, _, error = run_pynas(
        "supernet", "--space", f"template:{path}", "--images", "digits", "--image-size", 8
    )
    assert code == 2
    assert (
        "--image-size: layers[0], alternatives[0] conv_k9_valid does not fit on what is left of 8 x 8"
        in error
    )


@pytest.mark.slow
def test_a_search_of_a_file(run_pynas: Run, file: Path, tmp_path: Path) -> None:
    store, page = tmp_path / "runs.db", tmp_path / "page.html"
    search = ["search", "--images", "digits", "--batch", 8, "--store", store, "--json"]
    search += ["--strategy", "evolution", "--space"]
    code, out, error = run_pynas(*search, f"template:{file}", "--budget", 4)
    assert code == 0, error
    first = json.loads(out)
    template.save(THIN.set(0, 0, activation="silu"), file)
    code, _, error = run_pynas(*search, f"template:{file}", "--budget", 6, "--resume")
    assert code == 2, "another template has other networks"
    assert len(error) < 3000
    template.save(THIN.rename_layer(0, "renamed"), file)
    code, out, error = run_pynas(*search, f"template:{file}", "--budget", 6, "--resume", "--report", page)
    assert code == 0, error
    assert json.loads(out)["best"]["architecture"].count("|") == first["best"]["architecture"].count("|") == 3
    code, _, error = run_pynas("report", store, "--output", page)
    assert code == 0, error
    assert "conv_c16_s2" in page.read_text()
    with Store(store) as opened:
        (run,) = opened.runs()
        space = registered_space(run)
    assert isinstance(space, TemplateSpace)
    assert space.digest == TemplateSpace(template=THIN).digest


def test_a_store_tells_templates_apart(tmp_path: Path) -> None:
    def quality(arch: pynas.Architecture) -> float:
        return float(sum(arch.decisions))

    settings = {"objectives": ["quality"], "evaluator": quality, "store": tmp_path / "runs.db", "seed": 0}
    large = THIN.replace(layers=(*THIN.layers, *(THIN.layers[2],) * 30))  # whose text is long
    for number, design in enumerate((THIN, large)):
        space = TemplateSpace(template=design)
        pynas.search(space, budget=3, **settings)
        changed = TemplateSpace(template=design.set(-1, 0, activation="silu"))
        with pytest.raises(pynas.UserError):
            pynas.search(changed, budget=5, resume=True, **settings)
        done = pynas.search(space, budget=5, resume=True, **settings)
        assert [t.number for t in done.trials] == [0, 1, 2, 3, 4]
        with Store(tmp_path / "runs.db") as opened:
            run = opened.runs()[number]
            found = registered_space(run)
        assert isinstance(found, TemplateSpace)
        assert found.digest == space.digest


@pytest.mark.slow
def test_a_latency_table_is_of_its_template(run_pynas: Run, file: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    build = ["hardware", "build", f"template:{file}", table, "--rounds", 1, "--seconds", 0.001]
    code, _, error = run_pynas(*build, "--fit", 4, "--held-out", 2, "--image-size", 8)
    assert code == 0, error
    space = TemplateSpace(template=THIN)
    assert LatencyTable.load(table, space).space is space
    alone = LatencyTable.load(table).space
    assert isinstance(alone, TemplateSpace)
    assert alone.digest == space.digest
    with pytest.raises(pynas.UserError, match="not of this space"):
        LatencyTable.load(table, TemplateSpace(template=THIN.set(0, 0, activation="silu")))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "fair", "flops", "softmax", "gumbel_hard"])
def test_supernet(run_pynas: Run, file: Path, tmp_path: Path, sampling: str) -> None:
    saved = tmp_path / "net.safetensors"
    options = ["--sampling", sampling, "--epochs", 1, "--limit", 300, "--candidates", 3, "--save", saved]
    code, out, error = run_pynas("supernet", "--space", f"template:{file}", *options, "--json")
    assert code == 0, error
    record = json.loads(out)
    space = TemplateSpace(template=THIN)
    arch = pynas.Architecture.from_json(json.dumps(record["architecture"]))
    space.check(arch)
    from pynas._io import weights

    tensors, metadata = weights.load(saved)
    assert TemplateSpace(template=metadata["template"]).digest == space.digest
    from pynas.supernet import TemplateSupernet

    model = TemplateSupernet(space)
    model.network.load_state_dict(tensors)
    code, out, _ = run_pynas("supernet", "--space", f"template:{file}", *options[:-2])
    assert code == 0
    assert f"found: {space.format(arch)}" in out
