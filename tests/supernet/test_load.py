"""What ``pynas supernet --save`` writes is read by one call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pynas import supernet
from pynas._errors import UserError
from pynas._io import weights
from pynas.cli import app


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "options",
    [
        ["--space", "darts", "--channels", "4", "--cells", "3"],
        ["--space", "nasbench201", "--channels", "4", "--sampling", "uniform", "--candidates", "2"],
    ],
    ids=["darts", "nasbench201"],
)
def test_saved_supernets_are_loaded(options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    app(
        [
            "supernet",
            *options,
            "--epochs",
            "1",
            "--batch",
            "8",
            "--limit",
            "40",
            "--save",
            str(file),
            "--json",
        ],
        standalone_mode=False,
    )
    model = supernet.load(file)
    tensors, _ = weights.load(file)
    assert not model.training
    for name, value in model.network.state_dict().items():  # type: ignore[union-attr,operator]
        assert torch.equal(value, tensors[name]), name
    weights.save(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"space": "darts"})
    with pytest.raises(UserError, match="not a file of 'pynas supernet --save'"):
        supernet.load(tmp_path / "other.safetensors")
