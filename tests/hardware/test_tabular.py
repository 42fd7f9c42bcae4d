from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from pynas import spaces
from pynas._errors import UserError
from pynas.hardware import TabularLatency, kinds, load
from pynas.testing.strategies import ToySpace

SPACE = ToySpace(length=2, choices=3)  # nine architectures


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "hw.npz"
    values = np.arange(1.0, 10.0)
    edge = np.where(values == 4, -1, np.where(values == 5, np.nan, 10 * values))
    np.savez(
        path,
        **{
            "cifar10/raspi4_latency": values,
            "cifar10/edgetpu_latency": edge,
            "cifar10/edgetpu_energy": 2 * values,
            "cifar100/raspi4_latency": 100 * values,
            "other": np.zeros(3),
        },
    )
    return path


def test_columns(archive):
    models = TabularLatency.read(archive, SPACE)
    assert [model.name for model in models] == ["latency:raspi4", "latency:edgetpu", "energy:edgetpu"]
    assert [model.unit for model in models] == ["ms", "ms", "mJ"]
    arch = SPACE.from_index(6)
    assert [model.predict(arch) for model in models] == [7, 70, 14]
    (other,) = TabularLatency.read(archive, SPACE, "cifar100/raspi4")
    assert other.predict(arch) == 700
    assert other.describe() != models[0].describe()
    assert load(f"hw:{archive}:edgetpu", SPACE)[1].predict(arch) == 14
    assert len(load(f"hw:{archive}", SPACE)) == 3
    assert kinds() == ("hw", "table")


def test_unsupported_and_absent(archive):
    latency, _ = TabularLatency.read(archive, SPACE, "edgetpu")
    assert math.isnan(latency.predict(SPACE.from_index(3)))
    assert latency.explain(SPACE.from_index(3)) == "edgetpu does not support it"
    assert math.isnan(latency.predict(SPACE.from_index(4)))
    assert latency.explain(SPACE.from_index(4)) == "hw.npz has no value for it"
    assert latency.explain(SPACE.from_index(5)) == ""


def test_rows_by_architecture_string(tmp_path):
    path = tmp_path / "hw.npz"
    np.savez(path, arch_str=np.array(["2-1", "0-0"]), **{"cifar10/phone_latency": [5.0, 3.0]})
    (model,) = TabularLatency.read(path, SPACE)
    assert model.predict(SPACE.parse("2-1")) == 5
    assert model.predict(SPACE.parse("0-0")) == 3
    assert math.isnan(model.predict(SPACE.parse("1-1")))
    np.savez(path, arch_str=np.array(["2-1", "9-0"]), **{"cifar10/phone_latency": [5.0, 3.0]})
    with pytest.raises(UserError, match="row 1 of arch_str: not a toy architecture"):
        TabularLatency.read(path, SPACE)
    np.savez(path, arch_str=np.array(["2-1"]), **{"cifar10/phone_latency": [5.0, 3.0]})
    with pytest.raises(UserError, match="arch_str has 1 row, another 2"):
        TabularLatency.read(path, SPACE)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hw:/no/such.npz", "/no/such.npz: no such file"),
        ("hw:{}:pixel3", "no device 'pixel3'; it has: edgetpu, raspi4"),
        ("hw:{}:imagenet/raspi4", "no latencies for data set 'imagenet'; it has: cifar10, cifar100"),
        ("hw:", "give a file, as in hw:FILE"),
        ("tabel:{}", "unknown kind of latencies 'tabel'; known: hw, table. Did you mean 'table'?"),
        ("table:{}", "not a latency table"),
    ],
)
def test_bad_specs(archive, spec, message):
    with pytest.raises(UserError) as error:
        load(spec.format(archive), SPACE)
    assert message in str(error.value)


def test_tables_that_do_not_fit(tmp_path):
    path = tmp_path / "hw.npz"
    np.savez(path, a=[1.0])
    with pytest.raises(UserError, match=r"expected arrays called DATASET/DEVICE_latency, got the keys a"):
        TabularLatency.read(path, SPACE)
    np.savez(path, **{"cifar10/phone_latency": [5.0, 3.0]})
    with pytest.raises(UserError, match=r"expected \[9\], one for each architecture of toy"):
        TabularLatency.read(path, SPACE)
    with pytest.raises(UserError, match="latency:phone of architecture 2 is inf"):
        TabularLatency(SPACE, [1, 2, math.inf, *[1] * 6], "phone")


def test_hw_nas_bench(shared_data):
    space = spaces.get("nasbench201")
    models = {m.name: m for m in load(f"hw:{shared_data / 'nb201_hw.npz'}", space)}
    assert set(models) == {
        "latency:edgegpu",
        "energy:edgegpu",
        "latency:raspi4",
        "latency:edgetpu",
        "latency:pixel3",
    }
    known = [models["latency:edgetpu"].predict(arch) for arch in space.all()]
    assert sum(map(math.isnan, known)) == 4699
    arch = space.parse(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    )
    assert models["latency:raspi4"].predict(arch) > 50  # among the slowest: six 3x3 convolutions


@pytest.mark.slow
def test_no_torch():
    code = "import sys, pynas.hardware; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_data_set_that_accuracies_are_of(tmp_path):
    """The same network has another latency on larger images."""
    values = {
        d: np.full(SPACE.size, n) for d, n in (("cifar10", 1.0), ("cifar100", 2.0), ("ImageNet16-120", 3.0))
    }
    np.savez(tmp_path / "hw.npz", **{f"{d}/raspi4_latency": v for d, v in values.items()})
    arch, spec = next(iter(SPACE.all())), f"hw:{tmp_path}/hw.npz:raspi4"

    def latency(spec, dataset):
        return load(spec, SPACE, dataset)[0].predict(arch)

    assert [latency(spec, d) for d in (None, "cifar10-valid", *values)] == [1, 1, 1, 2, 3]
    assert latency(spec.replace("raspi4", "cifar10/raspi4"), "cifar100") == 1  # who names one gets it
    with pytest.raises(UserError, match=r"no latencies for data set 'svhn'; it has: .*name it: hw:hw.npz:"):
        latency(spec, "svhn")
    del values["cifar10"]
    np.savez(tmp_path / "hw.npz", **{f"{d}/raspi4_latency": v for d, v in values.items()})
    with pytest.raises(UserError, match="no latencies for data set 'cifar10'"):
        latency(spec, None)
