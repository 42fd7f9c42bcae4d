"""What reads each kind of file that pynas reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pynas import data, hardware, tables
from pynas._errors import UserNotice
from pynas._io import weights
from pynas.analysis import standalone
from pynas.analysis.study import Study
from pynas.data.text import read_words
from pynas.embedding import Arch2Vec
from pynas.hardware import LatencyTable
from pynas.spaces import NASBench101, NASBench201, SearchSpace, template
from pynas.store import Store
from pynas.supernet.checkpoint import Checkpoint, CheckpointFolder
from pynas.tables import conversion
from pynas.tables.analog import read_file as read_analog

STEP = 12
"""Of the checkpoint."""

IMAGE_SUFFIXES = ("bmp", "gif", "jpg", "png", "ppm", "tif", "webp")


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        filename: What such a file is called, with the folders that its reader wants.
        read: Reads it, and returns its content.
        alone: Whether it needs no other files beside it.
    """

    filename: str
    read: Callable[[Path], object]
    alone: bool = True


class Few(NASBench201):
    """Of as many cells as a small analog table has."""

    size = 12


class Judged:
    """As much of a study as its results need."""

    def _judged(self, statistics: str) -> dict[str, Any]:
        return {"task": "digits", "architectures": [[1, 2], [3, 4]]}


SPACE = NASBench201(channels=4, num_cells=1)


def _checkpoint(path: Path) -> Checkpoint:
    return CheckpointFolder(path.parent).load(STEP)


def _embedding(path: Path) -> dict[str, Any]:
    return dict(Arch2Vec.load(path, SPACE).model.state_dict())


def _latencies(path: Path, unfinished: bool) -> dict[str, Any]:
    table = LatencyTable.load(path, partial=unfinished)
    return {"operators": table.operators, "fit": table.describe()["fit"], "networks": table.networks}


def _measured(path: Path) -> list[Any]:
    return [getattr(model, "values", None) for model in hardware.load(f"hw:{path}", SPACE)]


def _published(path: Path, folder: bool = False) -> Any:
    content = conversion.read(path.parent if folder else path, lambda share: None)
    return content.family, dict(content.names), {c.key: array for c, array in content.columns.items()}


def _compact(path: Path, space: SearchSpace) -> Any:
    benchmark = tables.open(path, space)
    return {column.key: benchmark.values(column) for column in benchmark.columns}


def _images(path: Path, kind: str, above: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)  # of images of one class
        images = data.load_images(f"{kind}:{path.parents[above - 1] if above else path}")
    return images.pixels, images.targets, images.num_classes


def _store(path: Path) -> Any:
    with Store(path, read_only=True) as store:
        return [(run, store.trials(run), store.state(run)) for run in store.runs()]


READERS = {
    "weights": Reader("a.safetensors", weights.load),
    "weights-from-elsewhere": Reader("a.safetensors", partial(weights.load, checked=False)),
    "checkpoint": Reader(f"folder/step-{STEP:08d}.safetensors", _checkpoint),
    "embedding": Reader("e.safetensors", _embedding),
    "latency-table": Reader("table.json", partial(_latencies, unfinished=False)),
    "unfinished-latency-table": Reader("table.json", partial(_latencies, unfinished=True)),
    "measured-latencies": Reader("hw.npz", _measured),
    "nats-file": Reader("NATS-tss.pickle.pbz2", _published),
    "nats-folder": Reader("NATS-tss-simple/000001.pickle.pbz2", partial(_published, folder=True), False),
    "hw-pickle": Reader("HW-NAS-Bench.pickle", _published),
    "transnas-file": Reader("transnas.pth", _published),
    "transnas-file-before-torch-1.6": Reader("transnas.pth", _published),
    "nasbench101-records": Reader("nasbench.tfrecord", _published),
    "compact-table": Reader("nats.npz", partial(_compact, space=SPACE)),
    "compact-table-of-nasbench101": Reader("nb101.npz", partial(_compact, space=NASBench101())),
    "accuracies-archive": Reader("nb201.npz", lambda path: tables.load(f"npz:{path}", SPACE).values),
    "analog-table": Reader("data.anb", lambda path: read_analog(path, Few()).values),
    "cifar10": Reader("cifar/data_batch_1", partial(_images, kind="cifar10", above=1)),
    "cifar10-binary": Reader("cifar/data_batch_1.bin", partial(_images, kind="cifar10", above=1)),
    "images-archive": Reader("images.npz", partial(_images, kind="npz", above=0)),
    **{
        f"image-folder-{suffix}": Reader(
            f"root/class/image.{suffix}", partial(_images, kind="folder", above=2)
        )
        for suffix in IMAGE_SUFFIXES
    },
    "template": Reader("mine.json", template.load),
    "text": Reader("text.txt", read_words),
    "compressed-text": Reader("text.gz", read_words),
    "store": Reader("runs.db", _store),
    "networks-trained-alone": Reader("alone.jsonl", lambda path: standalone._Cache(path)._known),
    "estimates-of-a-study": Reader(
        "study/estimates-10-running.json",
        lambda path: Study._read(cast(Study, Judged()), path.parent, 10, "running"),
    ),
}
"""By name; tests damage a valid file of each (``tests/file_formats.py``)."""
