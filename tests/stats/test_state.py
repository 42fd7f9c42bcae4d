"""Whatever happens in a forward pass, and wherever it stops, nothing of it stays."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import pynas
from pynas._errors import UserError
from pynas.stats import GradMoments, collect
from pynas.stats.state import preserved, seed_generators
from tests.thinning import spread


class Observer(nn.Module):
    """Resizes a buffer as PyTorch's observers do, replaces one, adds one, removes one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(0))
        self.register_buffer("mask", torch.tensor([[1.0], [2.0]]).expand(2, 3), persistent=False)
        self.register_buffer("old", torch.tensor([float("nan"), -0.0]))
        self.register_buffer("swapped", torch.ones(3))
        self.register_buffer("graph", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.low.resize_(3).copy_(x.detach().amin(0)[:3])
        self.swapped = self.swapped.double() * 2
        self.register_buffer("new", torch.ones(1), persistent=False)
        self.old.data.zero_()
        del self.old
        self._non_persistent_buffers_set.discard("mask")
        self.graph += x.mean(0)[:3]  # not under no_grad: the buffer joins the graph
        return x


class Rebinds(nn.Module):
    """Counts, caches, builds a layer, draws, leaves hooks, and overrides its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen, self.table = 0, [torch.ones(2)], {"a": 1}
        self.steps = torch.zeros(1)
        self.leaf = nn.Identity()
        self.weight = nn.Parameter(torch.ones(4))
        self.generator = torch.Generator().manual_seed(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        self.seen.append(x)
        self.table[self.calls] = x
        self.steps += 1
        self.late = nn.Linear(4, 4)
        self.leaf.register_forward_hook(lambda *_: None)
        if self.weight.requires_grad:
            self.weight.register_hook(lambda g: g)
        self.weight.note = 3
        self.leaf.forward = lambda y: y
        self.leaf.requires_grad_(False)
        self.weight.requires_grad = False
        self.register_parameter("more", nn.Parameter(torch.ones(2)))
        self.eval()
        drawn = float(np.random.rand()) + random.random()  # noqa: NPY002
        noise = torch.rand(4, generator=self.generator) + drawn
        return self.leaf(x) * noise.to(x)


class Differentiates(nn.Module):
    """Runs a backward pass of its own into the caller's gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            with torch._C.DisableTorchFunction():
                (self.inner.weight * 2).sum().backward()
        return x * 2


def network(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *middle,
        nn.Dropout(0.5), nn.Linear(4, 5),
    )  # fmt: skip


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return network(nn.utils.weight_norm(nn.Linear(4, 4)))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": network,
    "spectral norm": lambda: network(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).eval()),
    "buffers": lambda: network(Observer()),
    "attributes": lambda: network(Rebinds()),
    "backward": lambda: network(Differentiates()),
    "weight norm": old_weight_norm,
}


def made(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    seed_generators(1)
    model, x, y = MODELS[name](), torch.randn(4, 3, 6, 6), torch.arange(4)
    for i, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, i) if i % 2 else None
    model[-1].bias.requires_grad_(False)
    model[1].eval()
    return model, x, y


def tensor_state(t: Tensor) -> tuple[object, ...]:
    bits = t.detach().clone().numpy().tobytes()  # of a copy: numpy's memory cannot be resized
    attributes = sorted((k, id(v)) for k, v in vars(t).items())
    hooks = list(t._backward_hooks or ())
    place = (t.data_ptr(), t.untyped_storage().nbytes(), t.shape, t.stride(), t.dtype)
    return (id(t), *place, t._version, t.requires_grad, t.is_leaf, bits, attributes, hooks)


def state(model: nn.Module) -> list[object]:
    """Everything that can be told about a model and the random generators, comparable by ``==``."""
    found: list[object] = []
    for module in model.modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        found.append([id(module), type(module), sorted(module._non_persistent_buffers_set)])
        for key, value in sorted(vars(module).items()):
            content = ()
            if isinstance(value, dict):
                content = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, list):
                content = [id(v) for v in value]
            elif isinstance(value, torch.Generator):
                content = value.get_state().tolist()
            elif isinstance(value, Tensor) and value.is_leaf:
                tensors.append(value)
            found.append((key, id(value), content))
        for t in tensors:
            if t is not None:
                found.append(tensor_state(t))
                found.append(None if t.grad is None else tensor_state(t.grad))
    drawn = np.random.get_state()  # noqa: NPY002
    return [*found, torch.get_rng_state().tolist(), random.getstate(), repr(drawn)]


class FailAt(TorchFunctionMode):
    """Raises at call ``n``, once."""

    def __init__(self, n: int, error: type[BaseException]) -> None:
        super().__init__()
        self.left, self.error = n, error

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.left -= 1
        if self.left == -1:
            raise self.error("injected")
        return func(*args, **(kwargs or {}))


def by_collect(model: nn.Module, x: Tensor, y: Tensor) -> None:
    collect(model, x, y, needs=[GradMoments(parameters="weights")], training=True, seed=0)


def by_score(*names: str) -> Callable[[nn.Module, Tensor, Tensor], None]:
    return lambda model, x, y: pynas.score(model, x, y, names) and None


PASSES = {
    "collect": by_collect,
    "score": by_score("naswot", "ntk_condition"),
    "own probes": by_score("synflow", "zen", "ntk_condition_tenas"),
}
ERRORS = (RuntimeError, KeyboardInterrupt, MemoryError)


@pytest.mark.parametrize("run", PASSES)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_stays(name: str, run: str) -> None:
    model, x, y = made(name)
    before = state(model)
    PASSES[run](model, x, y)
    assert state(model) == before


@pytest.mark.slow
@pytest.mark.parametrize("run", PASSES)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_stays_wherever_it_fails(name: str, run: str) -> None:
    model, x, y = made(name)
    before = state(model)
    for _ in range(2):  # the first pass of a process fills caches by calls that no other makes
        never = FailAt(sys.maxsize, RuntimeError)
        with never:
            PASSES[run](model, x, y)
    calls = sys.maxsize - never.left
    assert calls > 20
    for i, n in enumerate(spread(calls)):
        mode = FailAt(n, ERRORS[i % len(ERRORS)])
        with mode, contextlib.suppress(*ERRORS, UserError):
            PASSES[run](model, x, y)
        assert mode.left < 0, f"call {n} of {calls} was not made again"
        assert state(model) == before, f"after {mode.error.__name__} at call {n}"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("run", PASSES)
def test_a_hook_that_raises(run: str, error: type[BaseException]) -> None:
    model, x, y = made("attributes")

    def fail(*_: object) -> None:
        raise error("in a hook")

    model[-2].register_forward_hook(fail)
    before = state(model)
    if run != "collect" and error is RuntimeError:
        assert all(s.status == "failed" for s in pynas.score(model, x, y, ["zico", "zen"]).values())
    else:
        with pytest.raises(error, match="in a hook"):
            PASSES[run](model, x, y)
    assert state(model) == before


def test_numpy_and_python_draw_from_the_seed() -> None:
    model, x, y = made("attributes")
    first, again = (pynas.score(model, x, y, ["snip", "zen", "synflow"]) for _ in range(2))
    other = pynas.score(model, x, y, ["snip", "zen", "synflow"], seed=1)
    for name, score in first.items():
        assert score.status == "ok", score.message
        assert score.value == again[name].value
        assert score.value != other[name].value


def test_a_graph_from_before_still_has_its_backward_pass() -> None:
    model, x, y = made("batch norm")
    outputs = model.eval()(x)  # saves running statistics
    by_collect(model, x, y)
    outputs.sum().backward()


def stop(model: nn.Module, x: Tensor, error: BaseException) -> None:
    with preserved(model):
        model(x)
        raise error


class InPlace(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.mul_(0.5)
        return super().forward(x)


@pytest.mark.parametrize("width", [4, 40])
def test_writes_into_weights_are_found(width: int) -> None:
    model = nn.Sequential(InPlace(width, width))
    with pytest.raises(UserError, match=r"changes its parameters in place \(the value of '0\.weight'\)"):
        collect(model, torch.ones(2, width), torch.zeros(2, dtype=torch.int64), needs=[GradMoments()])
    with pytest.raises(KeyboardInterrupt) as caught:
        stop(model, torch.ones(2, width), KeyboardInterrupt())
    assert "changes its parameters in place" in caught.value.__notes__[0]
    model[0].weight.grad = gradient = torch.ones(width, width)
    with pytest.raises(UserError, match=r"its \.grad"), preserved(model):
        gradient.add_(1)


def test_memory_of_weights_comes_back() -> None:
    model = nn.Linear(3, 3)
    before = state(model)
    with preserved(model):
        model.half()
        model.weight.data = model.weight.data * 2
    assert state(model) == before


@pytest.mark.parametrize(
    ("failures", "expected", "message"),
    [
        ([KeyboardInterrupt], KeyboardInterrupt, "while restoring"),
        ([ValueError], RuntimeError, "in the pass"),
        ([ValueError] * 2, RuntimeError, "not all of it could be restored: ValueError: while restoring"),
    ],
)
def test_one_step_that_fails_leaves_the_others(
    failures: list[type[BaseException]],
    expected: type[BaseException],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x, _ = made("attributes")
    before, setstate, left = state(model), random.setstate, list(failures)

    def restoring(value: Any) -> None:
        if left:
            raise left.pop()("while restoring")
        setstate(value)

    monkeypatch.setattr(random, "setstate", restoring)
    with pytest.raises(expected, match=message) as caught:
        stop(model, x, RuntimeError("in the pass"))
    random.seed(0)
    before[-2] = random.getstate()
    assert state(model) == before
    assert message == "in the pass" or "in the pass" in str(caught.value.__cause__)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_sparse_and_scripted_models() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("adjacency", torch.eye(3).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            self.adjacency.mul_(2)
            return torch.sparse.mm(self.adjacency, x)

    graph = Graph()
    with preserved(graph):
        graph(torch.ones(3, 2))
    assert torch.equal(graph.adjacency.to_dense(), torch.eye(3))
    scripted = torch.jit.trace(nn.BatchNorm1d(3).eval(), torch.ones(2, 3), check_trace=False)
    mean = scripted.running_mean.clone()
    with preserved(scripted):
        scripted.running_mean.add_(1)
        scripted.eval()
    assert torch.equal(scripted.running_mean, mean)


def test_lazy_layers_are_told_to_see_a_batch_first() -> None:
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), (torch.ones(2, 3), torch.zeros(2).long())
    for run in (by_collect, by_score("params"), by_score("zen")):
        with pytest.raises(UserError, match=r"'1\.weight' is not initialised yet.*on a batch first"):
            run(model, x, y)
    model(x)
    assert F.relu(torch.tensor(pynas.score(model, x, y, ["snip"])["snip"].value)) > 0
