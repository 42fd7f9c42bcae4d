"""What strangers meet first: the version, the source distribution, the workflow, the forms, the citation."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
PREPARE = yaml.safe_load((GITHUB / "actions" / "prepare" / "action.yml").read_text())
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
STEPS += PREPARE["runs"]["steps"]
COMMANDS = "\n".join(step.get("run", "") for step in STEPS)


def version() -> str:
    found = re.findall(r'^__version__ = "(.+)"$', (ROOT / "pynas" / "__init__.py").read_text(), re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    number = re.compile(rf"(?<![\w.]){re.escape(version())}(?![\w.])")
    files = [ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", ROOT / "CITATION.cff", ROOT / "Makefile"]
    files += [*ROOT.glob("cmake/*"), *ROOT.glob("csrc/bindings/*"), *ROOT.glob("pynas/**/*.py")]
    assert [str(path.relative_to(ROOT)) for path in files if number.search(path.read_text())] == [
        "pynas/__init__.py"
    ]


def test_the_changelog_begins_with_the_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == version()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a source distribution made after builds, and without a .gitignore that would hide them."""
    pytest.importorskip("scikit_build_core")
    tree = tmp_path_factory.mktemp("sdist") / "tree"
    for folder in ("csrc", "cmake", "pynas", "docs", "examples", ".github"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for path in ROOT.glob("[!.]*"):
        if path.is_file():
            shutil.copy(path, tree)
    left_by_builds = ["pynas/_C.cpython-311-x86_64-linux-gnu.so", "csrc/ops/stray.o", "dist/pynas.whl"]
    for build in ("build/cp311-cp311-linux_x86_64", "build/sanitize"):
        left_by_builds += [f"{build}/CMakeFiles/_C.dir/csrc/ops/a.cpp.{kind}" for kind in ("o", "o.d")]
        left_by_builds += [f"{build}/_C.so", f"{build}/pynas/x.py"]
    left_by_builds += ["tests/test_x.py", "benches/test_x.py", "build/csrc/a.cpp", "build/libx.a"]
    for name in left_by_builds:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("left by a build")
    command = "import scikit_build_core.build as backend; backend.build_sdist('out')"
    subprocess.run([sys.executable, "-c", command], cwd=tree, check=True, capture_output=True)
    (archive,) = (tree / "out").iterdir()
    assert archive.name == f"pynas_torch-{version()}.tar.gz"
    with tarfile.open(archive) as tar:
        read = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read() for name, file in read.items() if file is not None}


@pytest.mark.slow
def test_the_source_distribution_has_what_a_build_needs_and_no_build(sdist: dict[str, bytes]) -> None:
    sources = {
        str(path.relative_to(ROOT))
        for folder in ("csrc", "cmake", "pynas", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so", ".o"}
    }
    assert len(sources) > 400
    assert sources - sdist.keys() == set()
    assert {"LICENSE", "README.md", "CMakeLists.txt", "pyproject.toml", "PKG-INFO"} <= sdist.keys()
    assert [name for name in sdist if re.search(r"\.(o|so|d|a|pyc|whl)$", name)] == []
    assert [name for name, text in sdist.items() if text == b"left by a build"] == []
    assert [name for name in sdist if name.split("/")[0] in {"build", "dist", "tests", ".github"}] == []


@pytest.mark.slow
def test_the_metadata_of_the_source_distribution(sdist: dict[str, bytes]) -> None:
    lines = sdist["PKG-INFO"].decode().partition("\n\n")[0].splitlines()
    assert f"Version: {version()}" in lines
    assert "Author: pynas maintainers" in lines
    urls = [line.removeprefix("Project-URL: ") for line in lines if line.startswith("Project-URL")]
    assert {url.partition(",")[0] for url in urls} == {
        "Homepage",
        "Repository",
        "Documentation",
        "Issues",
        "Changelog",
    }


def test_every_target_that_the_workflow_makes_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    calls = re.findall(r"^make (.*)$", COMMANDS, re.MULTILINE)
    targets = {word for call in calls for word in re.sub(r"\w+=('[^']*'|\S+)", "", call).split()}
    assert {"lint", "test", "sanitize", "docs"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for variable in {name for call in calls for name in re.findall(r"(\w+)=", call)}:
        assert re.search(rf"\$\({variable}\)", makefile), variable


def test_every_path_that_the_workflow_names_exists() -> None:
    texts = [COMMANDS, *(str(value) for step in STEPS for value in step.get("with", {}).values())]
    words = {word.strip("'\"") for text in texts for word in re.split(r"[\s=]+", text)}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build", "dist", ".venv"}
    paths = {word for word in words if word.partition("/")[0] in folders}
    paths |= {word for word in words if re.fullmatch(r"[\w-]+\.(txt|toml)", word)}
    paths |= {step["uses"].removeprefix("./") for step in STEPS if step.get("uses", "").startswith("./")}
    assert {"tests", "examples", "constraints.txt", "constraints-hashed.txt", "pyproject.toml"} <= paths
    assert ".github/actions/prepare" in paths
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_pythons_and_torch_of_the_workflow_are_those_of_the_package() -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"] == classified
    assert PROJECT["requires-python"] == f">={classified[0]}"
    assert PREPARE["inputs"]["python"]["default"] in classified
    oldest, newest = WORKFLOW["jobs"]["torch"]["strategy"]["matrix"]["torch"]
    assert f"torch>={oldest.removesuffix('.*')}" in PROJECT["dependencies"]
    assert newest == f"{oldest.split('.')[0]}.*"


def test_the_workflow_can_do_little_and_not_for_long() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["concurrency"]["group"]
    for name, job in WORKFLOW["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        assert "permissions" not in job, name
        checkout = job["steps"][0]
        assert checkout["uses"].startswith("actions/checkout@"), name
        assert checkout["with"]["persist-credentials"] is False, name
    for step in STEPS:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+|\./\S+", step.get("uses", "./run")), step
        assert "${{" not in step.get("run", ""), "a value goes through env, where a shell does not parse it"


def test_the_gpu_job_needs_a_runner_and_somebody_who_may_push() -> None:
    job = WORKFLOW["jobs"]["gpu"]
    assert "vars.PYNAS_GPU_RUNNER != ''" in job["if"]
    assert "github.event_name != 'pull_request'" in job["if"]
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    assert any(marker.startswith("cuda:") for marker in markers)
    assert "-m cuda" in job["steps"][-1]["run"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    doctor = [field for field in fields if "`pynas doctor --json`" in field["attributes"]["label"]]
    assert bool(doctor) == (path.stem in {"bug", "wrong_number"})
    assert all(field["validations"]["required"] for field in doctor)


def test_forms_and_template_send_people_where_something_is() -> None:
    assert {path.stem for path in FORMS} == {"bug", "feature", "wrong_number"}
    config = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "config.yml").read_text())
    home = PROJECT["urls"]["Repository"]
    assert all(link["url"].startswith(home) for link in config["contact_links"])
    text = "".join(path.read_text() for path in GITHUB.rglob("*") if path.is_file())
    for page in set(re.findall(r"\b[A-Z]+\.md\b", text)):
        assert (ROOT / page).is_file(), page
    template = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)`", template):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_dependabot_sees_pip_and_every_action() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    kinds = {update["package-ecosystem"]: update for update in updates}
    assert kinds.keys() == {"github-actions", "pip"}
    folders = {f"/{path.parent.relative_to(ROOT)}" for path in GITHUB.glob("actions/*/action.yml")}
    assert set(kinds["github-actions"]["directories"]) == {"/"} | folders


def test_the_citation_names_the_package_and_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == PROJECT["authors"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    sources = "".join(path.read_text() for path in (ROOT / "pynas").rglob("*.py"))
    for paper in citation["references"]:
        assert paper["authors"], paper["title"]
        assert all({"family-names", "given-names"} == author.keys() for author in paper["authors"])
        number = paper["url"].removeprefix("https://arxiv.org/abs/")
        assert f"arXiv:{number}" in [identifier["value"] for identifier in paper["identifiers"]]
        assert number in sources, f"nothing in pynas names {paper['title']}"
