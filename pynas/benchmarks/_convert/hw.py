"""HW-NAS-Bench: ``HW-NAS-Bench-v1_0.pickle``.

C. Li et al., "HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark", ICLR 2021,
arXiv:2103.10584.

``["nasbench201"][dataset][metric]`` lists 15,625 numbers in the official order of NAS-Bench-201: latencies in
milliseconds and energies in millijoules on six devices, a negative number where the device cannot run the
network. The FBNet half of the file (costs of single layers) is not converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pynas import spaces
from pynas._errors import UserError
from pynas.benchmarks._columns import Column
from pynas.benchmarks._compact import Content
from pynas.benchmarks._formats.pickle_stream import REDUCED
from pynas.benchmarks._formats.stand_ins import Array

_CONFIG = "config"


def reduce(mapping: Mapping[Any, Any]) -> str | None:
    """The architecture string of a dict if it configures one network, else None."""
    text = mapping.get("arch_str")
    return text if isinstance(text, str) and "num_classes" in mapping else None


def convert(path: Path, content: Mapping[str, Any]) -> Content:
    """The result of the file.

    Raises:
        UserError: It is laid out in another way.
    """
    space = spaces.get("nasbench201")
    columns: dict[Column, NDArray[Any]] = {}
    archs: list[str] = []
    try:
        for dataset, metrics in content["nasbench201"].items():
            configs = [config[REDUCED] for config in metrics.get(_CONFIG, ()) if REDUCED in config]
            if archs and configs and configs != archs:
                raise ValueError(f"{dataset} lists other architectures than the data sets before")
            archs = archs or configs
            for name, values in metrics.items():
                if name != _CONFIG:
                    numbers = values.values if isinstance(values, Array) else values
                    columns[Column(str(dataset), str(name))] = np.array(numbers, dtype=np.float64)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not laid out as HW-NAS-Bench: {error!s}") from error
    lengths = {array.shape for array in columns.values()}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise UserError(f"{path}: not laid out as HW-NAS-Bench: columns of shapes {sorted(lengths)}")
    ((count,),) = lengths
    if not archs and count == space.size:
        archs = [space.format(space.from_index(index)) for index in range(count)]
    if len(archs) != count:
        raise UserError(
            f"{path}: not laid out as HW-NAS-Bench: {count} numbers of {len(archs)} architectures"
        )
    return Content("hw_nas", path.name, {"arch_str": np.array(archs, dtype="S")}, columns)
