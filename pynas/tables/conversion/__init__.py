"""Converts the files that the benchmarks' authors publish to one compact file each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pynas._errors import UserError
from pynas._io.files import listed, open_regular
from pynas.tables import _compact
from pynas.tables._compact import Content
from pynas.tables.conversion import hw, nasbench101, nats, transnas
from pynas.tables.formats import pickle_file

READS = (
    "nasbench_full.tfrecord or nasbench_only108.tfrecord (NAS-Bench-101)",
    "NAS-Bench-201-v1_1-096897.pth (NAS-Bench-201)",
    "NATS-tss-v1_0-3ffb9-simple, a folder, or NATS-tss-v1_0-3ffb9.pickle.pbz2 (NATS-Bench, topology)",
    "NATS-sss-v1_0-50262-simple, a folder, or NATS-sss-v1_0-50262.pickle.pbz2 (NATS-Bench, size)",
    "transnas-bench_v10141024.pth (TransNAS-Bench-101)",
    "HW-NAS-Bench-v1_0.pickle (HW-NAS-Bench)",
)
"""What :func:`convert` reads: official file or folder, and the benchmark."""


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Content:
    """Convert an official file or folder to the compact file ``output``.

    The benchmark is recognised by the content, not by the name. The source is read as a stream: at most one
    architecture (one record, one training run) is in memory, besides the numbers of the result. No code of a
    pickle runs. ``output`` appears only when it is complete; an interrupted conversion leaves nothing and has
    to be restarted.

    Args:
        source: One of :data:`READS`, under any name; only TFRecord files need their suffix.
        output: The ``.npz`` file to write.
        overwrite: Replace ``output`` if it exists.
        on_progress: Called with the completed share, 0 to 1.

    Returns:
        The written content.

    Raises:
        UserError: The source is absent, damaged, or none of these; ``output`` exists or cannot be written.
    """
    path, target = Path(os.path.expanduser(source)), Path(os.path.expanduser(output))
    if target.suffix != ".npz":
        raise UserError(f"{target}: the name of a table ends in .npz")
    if os.path.exists(target) and not overwrite:
        raise UserError(f"{target}: exists already; --overwrite replaces it")
    if not os.path.isdir(target.parent):
        raise UserError(f"{target}: the folder {target.parent} does not exist")
    content = read(path, on_progress)
    _compact.write(target, content)
    on_progress(1.0)
    return content


def read(path: Path, on_progress: Callable[[float], None]) -> Content:
    """The content of the published file or folder at ``path``."""
    if os.path.isdir(path):
        if not nats.is_folder(path):
            raise _unknown(path, "a folder of no benchmark that pynas knows")
        return nats.convert_folder(path, on_progress)
    if path.suffix == ".tfrecord":
        return nasbench101.convert(path, on_progress)
    open_regular(path, hint=" or folder").close()  # a file that cannot be opened needs no list of formats
    try:
        loaded = pickle_file.load(path, _summary, what="the table of a benchmark", on_progress=on_progress)
    except UserError as error:
        raise UserError(f"{error}. {_reads()}") from error
    if isinstance(loaded, dict):
        if {"meta_archs", "arch2infos"} <= loaded.keys():
            return nats.convert_whole(path, loaded)
        if "metrics_dict" in loaded and "data" in loaded:
            return transnas.convert(path, loaded)
        if "nasbench201" in loaded:
            return hw.convert(path, loaded)
    keys = f" with the keys {listed(sorted(map(str, loaded)))}" if isinstance(loaded, dict) else ""
    raise _unknown(path, f"a {type(loaded).__name__}{keys} is the table of no benchmark that pynas knows")


def _unknown(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}. {_reads()}")


def _reads() -> str:
    return f"What is read: {'; '.join(READS)}"


def _summary(mapping: dict[Any, Any]) -> Callable[[dict[Any, Any]], Any] | None:
    """The function that reduces a dict of one of the pickles to what is kept, or None."""
    if "train_acc1es" in mapping:
        return nats.summary(mapping)
    if "total_epochs" in mapping:
        return transnas.summary(mapping)
    return hw.summary(mapping) if "num_classes" in mapping else None
