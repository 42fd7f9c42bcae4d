from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pynas.nn import DARTSSupernet, NASBench201Supernet, Supernet

SUPERNETS = (lambda: DARTSSupernet(4, 3, 5), lambda: NASBench201Supernet(4, 1, 5))


@pytest.fixture(params=SUPERNETS, ids=["darts", "nasbench201"])
def network(request: pytest.FixtureRequest) -> Supernet:
    torch.manual_seed(0)
    made: Supernet = request.param()
    with torch.no_grad():
        for alpha in made.architecture_parameters():
            alpha.normal_()
    return made


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(4, 3, 16, 16, dtype=dtype)


@pytest.mark.slow
def test_outputs_gradients_and_statistics_are_the_supernets(network: Supernet) -> None:
    network.double()
    plain, architecture, x = network.export(), network.derive(), images(torch.float64)
    for training in (True, False):
        network.train(training), plain.train(training)
        ours, theirs = network(x, architecture), plain(x)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-9)
        for module, y in ((network, ours), (plain, theirs)):
            module.zero_grad()
            torch.cos(y).sum().backward()
        gradients = dict(network.named_parameters())
        for name, parameter in plain.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-7, atol=1e-9)
    state = network.state_dict()
    for name, tensor in plain.state_dict().items():  # running statistics as well
        torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_it_is_independent_and_holds_only_what_it_uses(network: Supernet) -> None:
    plain, x = network.export(), images()
    expected = plain.eval()(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    torch.testing.assert_close(plain(x), expected, rtol=0, atol=0)
    assert not any("alpha" in name or "arch" in name for name in plain.state_dict())
    assert sum(p.numel() for p in plain.parameters()) < 0.7 * sum(p.numel() for p in network.parameters())
    for module in plain.modules():
        assert type(module).__module__.startswith(("torch.nn", "torch.fx"))


@pytest.mark.slow
def test_a_mixture_can_be_exported(network: Supernet) -> None:
    network.eval()
    mixture = network.sample()
    x = images()
    torch.testing.assert_close(network.export(mixture)(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_cell_without_any_live_edge() -> None:
    network = NASBench201Supernet(4, 1).eval()
    zeros = (torch.zeros(6, 5),)
    x = images()
    torch.testing.assert_close(network.export(zeros)(x), network(x, zeros))


LOAD = """
import sys
for name in list(sys.modules):
    assert not name.startswith("pynas"), name
sys.modules["pynas"] = None  # importing it fails
import torch
network = torch.load(sys.argv[1], weights_only=False)
x, expected, trained = torch.load(sys.argv[2], weights_only=True)
torch.testing.assert_close(network.eval()(x), expected)
torch.testing.assert_close(network.train()(x), trained)
loss = network(x).square().sum()
loss.backward()
assert all(p.grad is not None for p in network.parameters())
print("ok")
"""


@pytest.mark.slow
def test_it_loads_where_pynas_cannot_be_imported(network: Supernet, tmp_path: Path) -> None:
    plain, x = network.export(), images()
    values = (x, plain.eval()(x).detach(), copy.deepcopy(plain).train()(x).detach())
    torch.save(plain, tmp_path / "network.pt")
    torch.save(values, tmp_path / "values.pt")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LOAD,
            *map(str, (tmp_path / "network.pt", tmp_path / "values.pt")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout == "ok\n", done.stderr


def test_modes_are_kept() -> None:
    network = NASBench201Supernet(2, 1)
    assert network.export().training
    assert not network.eval().export().training
    assert isinstance(network.export(), nn.Module)
