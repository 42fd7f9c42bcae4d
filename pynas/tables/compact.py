"""Tables in files: ``table:FILE`` takes any; ``nb101:FILE``, ``nats:FILE`` etc. require that benchmark."""

from __future__ import annotations

from pynas._errors import UserError
from pynas.spaces import SearchSpace
from pynas.tables._base import Table
from pynas.tables._open import open

# The families allowed for each kind; kinds are the common names of benchmarks.
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
        raise UserError(f"table {kind}: give a file, as in {kind}:FILE.npz")
    benchmark = open(path_text, space)
    allowed = KINDS[kind]
    if allowed and benchmark.family.name not in allowed:
        raise UserError(
            f"{path_text}: a table of {benchmark.family.title}, not one for {kind}: use table:FILE"
        )
    return benchmark.table(metric, dataset=dataset)
