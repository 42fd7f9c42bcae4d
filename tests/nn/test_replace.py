from __future__ import annotations

import copy
import inspect

import pytest
import torch
from other_code import (
    Chain,
    ChoiceMixture,
    ConvMixture,
    DartsMixture,
    DartsNetwork,
    LoopInCell,
    OwnWeightsMixture,
    conv_candidates,
    depthwise,
)
from torch import Tensor, nn

from pynas.nn import MixedOp, replace_mixed_ops


def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def hold(*mixtures: nn.Module) -> nn.Module:
    return nn.ModuleDict({f"m{i}": mixture for i, mixture in enumerate(mixtures)})


@pytest.mark.slow
def test_training_continues_as_if_nothing_had_happened() -> None:
    torch.manual_seed(0)
    ours = DartsNetwork().double()
    theirs = copy.deepcopy(ours)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (ours, theirs)]
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        step(model, x, optimizer)  # so that there is momentum to keep
    before = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}

    report = replace_mixed_ops(ours)

    assert [item.name for item in report.swapped] == ["edges.0", "edges.1"]
    assert all(len(item.candidates) == 8 and not item.plain for item in report.swapped)
    assert not report.kept
    assert all(isinstance(edge, MixedOp) for edge in ours.edges)
    after = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
    for _ in range(3):
        losses = [step(m, x, o) for m, o in zip((ours, theirs), optimizers, strict=True)]
        torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-8, atol=1e-9)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_choices_in_a_dictionary_with_nested_parts(stride: int) -> None:
    model = hold(ChoiceMixture(6, stride))
    expected = copy.deepcopy(model.m0)
    keys = list(model.state_dict())
    report = replace_mixed_ops(model)
    assert [item.candidates for item in report.swapped] == [
        ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
    ]
    assert list(model.state_dict()) == keys
    x, w = torch.randn(2, 6, 8, 8), torch.rand(5)
    torch.testing.assert_close(model.m0(x, w), expected(x, w), rtol=1e-4, atol=1e-5)


def test_nasbench201_style() -> None:
    model = hold(ConvMixture(5))
    report = replace_mixed_ops(model)
    assert report.swapped[0].candidates == (
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
    )
    assert not report.swapped[0].plain


def test_unknown_candidates_stay_modules_in_the_mixture() -> None:
    class Larger(DartsMixture):
        def __init__(self) -> None:
            super().__init__(4, 1)
            self._ops[2] = Chain(*depthwise(4, 7, 1, 2, False))  # no candidate has a 7x7 kernel

    model = hold(Larger())
    hooked: list[int] = []
    model.m0._ops[4].register_forward_hook(lambda *_: hooked.append(1))
    expected = copy.deepcopy(model.m0)
    report = replace_mixed_ops(model)
    (item,) = report.swapped
    assert set(item.plain) == {"2", "4"}
    assert "(7, 7)" in item.plain["2"]
    assert "hooks" in item.plain["4"]
    hooked.clear()
    x, w = torch.randn(2, 4, 6, 6), torch.rand(8)
    torch.testing.assert_close(model.m0(x, w), expected(x, w), rtol=1e-4, atol=1e-5)
    assert hooked == [1, 1]  # once by each of the two


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m._ops[6].op.append(nn.Hardswish()), "Hardswish"),
        (lambda m: setattr(m._ops[6].op[3], "eps", 1e-3), "batch norm"),
        (lambda m: m._ops[6].op.__setitem__(2, nn.Conv2d(4, 4, 3, padding=1, bias=False)), "(3, 3)"),
        (lambda m: m._ops[6].op.__setitem__(0, nn.GELU()), "GELU"),
        (lambda m: m._ops[6].op.__setitem__(3, nn.GroupNorm(2, 4)), "GroupNorm"),
        (lambda m: m._ops.__setitem__(6, nn.Sequential(nn.MaxPool2d(5, 1, 2), nn.BatchNorm2d(4))), "affine"),
        (lambda m: m._ops[6].op[1].register_forward_pre_hook(lambda *_: None), "hooks"),
        (lambda m: nn.utils.parametrizations.weight_norm(m._ops[6].op[2]), "parametri"),
    ],
)
def test_why_a_candidate_stays_a_module(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    model = hold(DartsMixture(4, 1))
    change(model.m0)
    expected = copy.deepcopy(model.m0)
    (item,) = replace_mixed_ops(model).swapped
    assert list(item.plain) == ["6"]
    assert reason in item.plain["6"]
    x, w = torch.randn(2, 4, 6, 6), torch.rand(8)
    torch.testing.assert_close(model.m0(x, w), expected(x, w), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_with_hooks_beside_one_without() -> None:
    plain, hooked = DartsMixture(4, 1), DartsMixture(4, 1)
    hooked._ops[7].register_forward_hook(lambda *_: None)
    for order in ((plain, hooked), (hooked, plain)):
        model = hold(*copy.deepcopy(order))
        found = {len(item.plain) for item in replace_mixed_ops(model).swapped}
        assert found == {0, 1}


def test_layers_that_compute_something_else_are_found_out_by_value() -> None:
    class Reversed(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return -self.op(x)

    mixture = DartsMixture(4, 1)
    mixture._ops[7] = Reversed(*depthwise(4, 5, 1, 2, False))
    model = hold(mixture)
    (item,) = replace_mixed_ops(model).swapped
    assert item.plain == {"7": "has the layers of dil_conv_5x5 and computes something else"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x, weights: DartsMixture.forward(self, x, weights.softmax(-1)),
        lambda self, x, weights: DartsMixture.forward(self, x, weights.flip(0)),
        lambda self, x, weights: DartsMixture.forward(self, x, weights.detach()),
        lambda self, x, weights: DartsMixture.forward(self, x, weights[0]),
        lambda self, x, weights: nn.functional.dropout(DartsMixture.forward(self, x, weights)),
    ],
)
def test_another_forward_is_kept_with_its_candidates_fused(forward) -> None:  # type: ignore[no-untyped-def]
    mixture = type("Mixture", (DartsMixture,), {"forward": forward})(4, 1)
    expected = copy.deepcopy(mixture)
    model = hold(mixture)
    report = replace_mixed_ops(model)
    assert [len(item.candidates) for item in report.swapped] == [8]
    assert model.m0 is mixture
    x, w = torch.randn(2, 4, 6, 6), torch.rand(1, 8)
    w = w if "weights[0]" in inspect.getsource(forward) else w[0]
    results = []
    for module in (mixture, expected):
        torch.manual_seed(0)
        results.append(module(x, w))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda self, x, weights: sum(op(x).relu() for op in self._ops), "weighted sum"),
        (lambda self, x, weights: x, "weighted sum"),
        (lambda self, x: x, "weighted sum"),
        (lambda self, x, weights, index: x, "takes more than (x, weights)"),
        (lambda self, x, weights: self.missing, "cannot be tried on a small input"),
        (lambda self, x, w: (y := DartsMixture.forward(self, x, w)) + (y * 2).mean(), "differs by"),
    ],
)
def test_a_forward_that_adds_up_nothing_is_left_alone(forward, reason: str) -> None:  # type: ignore[no-untyped-def]
    kind = type("Mixture", (DartsMixture,), {"forward": forward})
    mixture = kind(4, 1)
    model = hold(mixture, kind(4, 1))
    report = replace_mixed_ops(model)
    assert not report.swapped
    assert model.m0 is mixture
    assert type(mixture) is kind
    assert [item.name for item in report.kept] == ["m0", "m1"]
    assert reason in report.kept[0].reason
    assert reason in str(report)


def test_what_has_other_parts_stays_the_module_that_it_is() -> None:
    hooked, beside = DartsMixture(4, 1), DartsMixture(4, 1)
    calls: list[int] = []
    hooked.register_forward_hook(lambda *_: calls.append(1))
    beside.pool = nn.MaxPool2d(2)
    parts = [OwnWeightsMixture(4, 1), LoopInCell(4), hooked, beside]
    model = hold(*parts)
    report = replace_mixed_ops(model)
    assert [item.name for item in report.swapped] == ["m0", "m1", "m2", "m3"]
    assert not report.kept
    assert list(model.children()) == parts
    calls.clear()
    model.m2(torch.randn(2, 4, 6, 6), torch.rand(8))
    assert calls == [1]
    assert (
        len(replace_mixed_ops(hold(*[DartsMixture(4, 1).requires_grad_(False) for _ in "ab"])).swapped) == 2
    )
    (item,) = replace_mixed_ops(DartsMixture(4, 1)).swapped  # the model itself
    assert item.name == ""
    (kept,) = replace_mixed_ops(nn.ModuleList(conv_candidates(4))).kept
    assert "from_modules" in kept.reason


def test_the_candidates_of_a_bare_list_can_be_wrapped() -> None:
    modules = nn.ModuleList(conv_candidates(4))
    fused = MixedOp.from_modules(modules)
    x, w = torch.randn(2, 4, 5, 5), torch.rand(5)
    expected = sum(a * op(x) for a, op in zip(w, copy.deepcopy(modules), strict=True))
    torch.testing.assert_close(fused(x, w), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="knows"):
        MixedOp.from_modules([nn.Linear(3, 3)])


def test_an_ordinary_network_is_untouched() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ModuleList([nn.ReLU(), nn.Identity()]))
    report = replace_mixed_ops(model)
    assert report.swapped == report.kept == ()
    with pytest.raises(TypeError, match="model"):
        replace_mixed_ops([model])  # type: ignore[arg-type]


def test_a_module_used_twice_is_swapped_once_and_attributes_stay() -> None:
    shared = DartsMixture(4, 2)
    model = hold(shared, shared)
    model.eval()
    report = replace_mixed_ops(model)
    assert len(report.swapped) == 1
    assert model.m0 is model.m1
    assert model.m0.stride == 2
    assert not model.m0.training
    assert replace_mixed_ops(model).swapped == ()  # nothing is left to swap


def test_modes_that_differ_within_a_mixture_are_obeyed() -> None:
    model = hold(DartsMixture(4, 1))
    replace_mixed_ops(model)
    fused = model.m0
    fused._ops[4].eval()
    plain = copy.deepcopy(fused)
    x, w = torch.randn(2, 4, 6, 6), torch.rand(8)
    expected = sum(a * op(x) for a, op in zip(w, plain._ops, strict=True))
    torch.testing.assert_close(fused(x, w), expected, rtol=1e-4, atol=1e-5)
