"""HW-NAS-Bench: ``HW-NAS-Bench-v1_0.pickle``.

C. Li et al., "HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark", ICLR 2021,
arXiv:2103.10584.

``["nasbench201"][dataset][metric]`` lists 15,625 numbers in the official order of NAS-Bench-201: latencies in
milliseconds and energies in millijoules on six devices, -1 where the device cannot run the network. The FBNet
half of the file (costs of single layers) is not converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas import spaces
from pynas._io.files import listed
from pynas._io.pickles.machine import REDUCED
from pynas._io.pickles.stand_ins import Array
from pynas._plural import counted
from pynas.tables._columns import Column, check_names
from pynas.tables._compact import Content
from pynas.tables.conversion._collector import Once, check_archs, laid_out_as, numbers_in

_CONFIG = "config"


def summary(mapping: Mapping[Any, Any]) -> Callable[[Mapping[Any, Any]], str] | None:
    """How to reduce a dict that configures one network: to its architecture string."""
    is_config = isinstance(mapping.get("arch_str"), str) and "num_classes" in mapping
    return _arch_of if is_config else None


def _arch_of(mapping: Mapping[Any, Any]) -> str:
    return str(mapping["arch_str"])


def convert(path: Path, content: Mapping[str, Any]) -> Content:
    """The converted content of the file.

    Raises:
        UserError: The file has another layout.
    """
    with laid_out_as(path, "HW-NAS-Bench"):
        return _content(path.name, content["nasbench201"])


def _content(source: str, datasets: Mapping[str, Mapping[str, Any]]) -> Content:
    space = spaces.get("nasbench201")
    columns: dict[Column, NDArray[Any]] = {}
    archs: list[str] = []
    once = Once()
    for dataset, metrics in datasets.items():
        configs = [config[REDUCED] for config in metrics.get(_CONFIG, ()) if REDUCED in config]
        if archs and configs and configs != archs:
            raise ValueError(f"{dataset} lists other architectures than the data sets before")
        archs = archs or configs
        for name, values in metrics.items():
            if name != _CONFIG:
                check_names(dataset, name)
                columns[Column(dataset, name)] = _numbers(once(values), space.size or 0)
    lengths = {array.shape for array in columns.values()}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise ValueError(f"columns of shapes {listed(sorted(lengths))}")
    ((count,),) = lengths
    if not archs and count == space.size:
        archs = [space.format(space.from_index(index)) for index in range(count)]
    if len(archs) != count:
        raise ValueError(f"{counted(count, 'number')} for {counted(len(archs), 'architecture')}")
    check_archs(archs, space.size or 0)
    return Content("hw_nas", source, {"arch_str": np.array(archs, dtype="S")}, columns)


def _numbers(values: Any, largest: int) -> NDArray[np.float64]:
    array = values.numbers if isinstance(values, Array) else np.array(numbers_in(values))
    if array.size > largest:
        raise ValueError(f"{counted(array.size, 'number')} for {counted(largest, 'architecture')}")
    return array.astype(np.float64)
