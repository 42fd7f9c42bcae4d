"""Tables in files: ``table:FILE`` takes any, ``nb101:FILE``, ``nats:FILE`` and so on say what it must be."""

from __future__ import annotations

from pynas._errors import UserError
from pynas.benchmarks._base import Table
from pynas.benchmarks._open import open
from pynas.spaces import SearchSpace

# Kind to the families that it may hold; a kind for each name that people use.
KINDS: dict[str, tuple[str, ...]] = {
    "table": (),
    "nb101": ("nasbench101",),
    "nb201": ("nats_tss",),
    "nats": ("nats_tss", "nats_sss"),
    "transnas": ("transnas101",),
    "hw": ("hw_nas",),
}


def read(kind: str, path_text: str, space: SearchSpace, metric: str | None, dataset: str | None) -> Table:
    """Read one metric of a file that ``pynas tables convert`` wrote, or of another archive.

    Raises:
        UserError: The file is absent, damaged, of another kind or space, or has no such metric.
    """
    if not path_text:
        raise UserError(f"table {kind}: say which file, as in {kind}:FILE.npz")
    benchmark = open(path_text, space)
    allowed = KINDS[kind]
    if allowed and benchmark.family.name not in allowed:
        raise UserError(
            f"{path_text}: a table of {benchmark.family.title}, not one for {kind}: use table:FILE"
        )
    return benchmark.table(metric, dataset=dataset)
