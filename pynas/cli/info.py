"""``pynas spaces | proxies | doctor``: list what is available."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from typing import Annotated, Any

import typer

import pynas
from pynas import _foreign
from pynas.cli import console, flags, specs

# What a user misses without an extra. The others are of those who work on pynas itself.
NEEDED_FOR = {
    "tables": "--table analog",
    "images": "--images folder:DIR",
    "pymoo": "--strategy nsga2",
    "botorch": "--strategy bayesian",
    "tensorboard": "pynas supernet --tensorboard",
    "postgresql": "--store postgresql://...",
    "steer": "pynas steer",
    "onnx": "pynas export --to onnx",
}
OF_DEVELOPERS = {"zoo", "peers", "docs", "dev"}


def spaces(
    space: Annotated[
        str | None,
        typer.Argument(
            help="Show this one: NAME, NAME:option=value,... or template:FILE", show_default=False
        ),
    ] = None,
    json: flags.Json = False,
) -> None:
    """List the search spaces, or show one; "-" means that a space has no limit.

    Examples:
      pynas spaces
      pynas spaces darts_cnn
    """
    from pynas.spaces.base import SPACES

    if space is not None:
        return _space(space, json)
    records = []
    for name, make in SPACES.working().items():
        found = make()
        records.append(
            {
                "name": name,
                "size": found.size,  # null: open-ended
                "decisions": None if found.size is None else len(found.num_choices),
                "summary": found.summary,
            }
        )
    if json:
        return console.print_json(records)
    console.print_table(
        "Search spaces",
        ["name", "architectures", "decisions", "what"],
        [(r["name"], r["size"], r["decisions"], r["summary"]) for r in records],
    )
    return None


def _space(text: str, json: bool) -> None:
    from pynas.spaces.description import describe

    found = describe(specs.open_space(text))
    if json:
        return console.print_json(dataclasses.asdict(found))
    for line in (found.title, "", f"Source: {found.source}", f"Architectures: {found.size_text}"):
        console.say(line)
    console.say(f"Example: {found.example}")
    if found.options:
        console.print_table(
            "Options",
            ["option", "default", "what"],
            [(o.name, str(o.default), o.text) for o in found.options],
        )
    return None


def proxies(json: flags.Json = False) -> None:
    """List the zero-shot proxies.

    Example: pynas proxies
    """
    from pynas import proxies as registry

    records = []
    for name, proxy in registry.REGISTRY.working().items():
        summary = (type(proxy).__doc__ or "").strip().splitlines()[0]
        records.append({"name": name, "higher_is_better": proxy.higher_is_better, "summary": summary})
    if json:
        return console.print_json(records)
    console.print_table(
        "Zero-shot proxies",
        ["name", "better", "what"],
        [(r["name"], "higher" if r["higher_is_better"] else "lower", r["summary"]) for r in records],
    )
    return None


def doctor(json: flags.Json = False) -> None:
    """Show versions, instruction set, GPU, ABI, and what is missing.

    Example: pynas doctor
    """
    facts, problems = _facts(), _problems()
    if json:
        return console.print_json({"facts": facts, "problems": problems})
    console.print_table("pynas doctor", ["what", "value"], list(facts.items()))
    for problem in problems:
        console.say(f"! {problem}")
    if not problems:
        console.say("Nothing is missing.")
    return None


def _facts() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {
        "pynas": f"{pynas.__version__} in {os.path.dirname(pynas.__file__)}",
        "python": f"{platform.python_version()} in {sys.prefix}",
        "system": platform.platform(),
        "torch": torch.__version__,
        "C++ ABI": "cxx11" if torch.compiled_with_cxx11_abi() else "pre-cxx11",
        "CPU threads": torch.get_num_threads(),
        "torch's instruction set": torch.backends.cpu.get_cpu_capability(),
    }
    try:
        import pynas._C as _C

        facts |= {
            "core built against torch": _C.torch_version,
            "core built by": _C.compiler,
            "core's instruction set": f"{_C.isa()} (of {', '.join(_C.available_isas())}; PYNAS_ISA chooses)",
            "core's CUDA kernels": f"sm_{_C.cuda_archs.replace(',', ', sm_')}"
            if _C.has_cuda
            else "not compiled",
        }
    except ImportError as error:
        facts["core"] = f"does not load: {error}"
    facts["GPU"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts["nvcc"] = shutil.which("nvcc") or "none"
    for extra, distributions in extras().items():
        versions = {name: _version(name) for name in distributions}
        facts[f"extra '{extra}'"] = _listed(versions)
    return facts


def _listed(versions: dict[str, str | None]) -> str:
    absent = [name for name, version in versions.items() if version is None]
    if len(versions) <= 3:
        return ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    return f"not installed: {', '.join(absent)}" if absent else f"all {len(versions)} packages"


def extras() -> dict[str, list[str]]:
    """The distributions that each optional extra of this package installs, as its metadata name them."""
    try:
        required = importlib.metadata.requires(_foreign.OURS) or []
    except importlib.metadata.PackageNotFoundError:  # run from its source, never installed
        return {}
    found: dict[str, list[str]] = {}
    for text in required:
        name, extra = re.match(r"[\w.-]+", text), re.search(r"extra\s*==\s*['\"]([\w-]+)", text)
        if name is not None and extra is not None:
            found.setdefault(extra[1], []).append(name[0])
    return found


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _problems() -> list[str]:
    import torch

    found = []
    try:
        import pynas._C as _C

        if _C.torch_version.split("+")[0] != torch.__version__.split("+")[0]:
            found.append(
                f"the core was built against torch {_C.torch_version} and runs with {torch.__version__}: "
                "rebuild it (make build, or pip install --no-build-isolation --force-reinstall --no-deps .)"
            )
        if torch.cuda.is_available() and not _C.has_cuda:
            found.append("there is a GPU but the core has no CUDA kernels: install nvcc and rebuild")
    except ImportError as error:
        found.append(f"the compiled core does not load ({error}): run make build")
    found += _foreign.installed()
    known = extras()
    if not known:
        found.append(f"{_foreign.OURS} is not installed here, so its optional extras are not known: run pip")
    for extra, distributions in known.items():
        missing = [name for name in distributions if _version(name) is None]
        if missing and extra in NEEDED_FOR:
            install = f"pip install '{_foreign.OURS}[{extra}]'"
            found.append(f"{NEEDED_FOR[extra]} needs {', '.join(missing)}: {install}")
    return found
