"""Names of data sets and metrics in each benchmark, and the meaning of validation and test in its API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Names = tuple[str, str]


def _as_they_are(dataset: str, metric: str) -> Names:
    return dataset, metric


def _nasbench101(dataset: str, metric: str) -> Names:
    return dataset, metric.replace("val_", "valid_", 1) if metric.startswith("val_") else metric


def _nats(dataset: str, metric: str) -> Names:
    """``valid_``, ``test_`` and ``valtest_`` as ``get_more_info`` and ``find_best`` of the API mean them.

    There are two trainings on CIFAR-10: on 25,000 of its training images, validated on the other 25,000
    (``cifar10-valid``), and on all 50,000 (``cifar10``), which leaves no validation set. The test sets of
    CIFAR-100 and ImageNet16-120 are split in halves, ``x-valid`` and ``x-test``; ``ori-test`` is both.
    """
    split, separator, rest = metric.partition("_")
    if not separator:
        return dataset, metric
    if split in ("valid", "val"):
        return "cifar10-valid" if dataset == "cifar10" else dataset, f"x-valid_{rest}"
    if split == "test":
        whole = dataset in ("cifar10", "cifar10-valid")
        return dataset, f"{'ori-test' if whole else 'x-test'}_{rest}"
    if split == "valtest":
        return dataset, f"ori-test_{rest}"
    return dataset, metric


# Measure of each task of TransNAS-Bench-101; larger is better for all.
TASK_SCORES = {
    "class_scene": "top1",
    "class_object": "top1",
    "room_layout": "neg_loss",
    "jigsaw": "top1",
    "segmentsemantic": "mIoU",
    "normal": "ssim",
    "autoencoder": "ssim",
}


def _transnas(dataset: str, metric: str) -> Names:
    """``valid_score`` and ``test_score`` (also after ``best_``) are the measure of the task."""
    if metric.endswith("_score") and dataset in TASK_SCORES:
        return dataset, metric.removesuffix("score") + TASK_SCORES[dataset]
    return dataset, metric


@dataclass(frozen=True)
class Family:
    """The names of one benchmark.

    Attributes:
        name: Key of :data:`FAMILIES`.
        title: Display name.
        spaces: Names of the spaces of its architectures.
        names: Maps data set and metric, which may be aliases, to their names in the file.
        default_datasets: The default is the first of these in a file.
        default_metrics: The default is the first of these in a file.
        validation: The metric that a search may use; the training on its data set counts as cost.
        validation_time: Metric with the seconds of one pass over the validation set.
        dataset_aliases: Other names of data sets.
    """

    name: str
    title: str
    spaces: tuple[str, ...]
    names: Callable[[str, str], Names] = _as_they_are
    default_datasets: tuple[str, ...] = ("cifar10",)
    default_metrics: tuple[str, ...] = ("test_accuracy", "valid_accuracy")
    validation: str = "valid_accuracy"
    validation_time: str | None = None
    dataset_aliases: Mapping[str, str] = field(default_factory=dict)

    def dataset(self, name: str) -> str:
        """The file's name of a dataset."""
        return self.dataset_aliases.get(name, name)

    def resolve(self, dataset: str, metric: str) -> Names:
        """The file's names of a dataset and a metric."""
        return self.names(self.dataset(dataset), metric)


_IMAGENET = dict.fromkeys(("imagenet16", "imagenet16-120", "ImageNet16"), "ImageNet16-120")

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("nasbench101", "NAS-Bench-101", ("nasbench101",), _nasbench101),
        Family(
            "nats_tss", "NAS-Bench-201 / NATS-Bench TSS", ("nasbench201",), _nats,
            validation_time="x-valid_time", dataset_aliases=_IMAGENET,
        ),
        Family(
            "nats_sss", "NATS-Bench SSS", ("nats_size",), _nats,
            validation_time="x-valid_time", dataset_aliases=_IMAGENET,
        ),
        Family(
            "transnas101", "TransNAS-Bench-101", ("transnas_micro", "transnas_macro"), _transnas,
            default_datasets=tuple(TASK_SCORES), default_metrics=("test_score", "valid_score"),
            validation="valid_score",
        ),
        Family(
            "hw_nas", "HW-NAS-Bench", ("nasbench201",), default_metrics=(), dataset_aliases=_IMAGENET,
        ),
        Family(
            "analog", "analog-nasbench", ("nasbench201",), default_metrics=("baseline_accuracy",),
        ),
        Family("npz", "NumPy archive", ()),
    )
}  # fmt: skip
