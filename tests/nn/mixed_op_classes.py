"""Mixed operations as several projects write them: how they hold candidates and where weights come from."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import torch
from other_code import DARTS_STYLE, Chain, Nothing, Skip
from torch import Tensor, nn


def darts_candidates(c: int, stride: int) -> dict[str, nn.Module]:
    """The eight of DARTS; pools are followed by a batch norm."""
    made = {name: make(c, stride, False) for name, make in DARTS_STYLE.items()}
    return {
        name: nn.Sequential(op, nn.BatchNorm2d(c, affine=False)) if "pool" in name else op
        for name, op in made.items()
    }


# ---- AutoDL-Projects: biases unless batch norms are affine, weights of all edges at once ---------------


class Reduction(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        widths = (c // 2, c - c // 2)
        self.convs = nn.ModuleList(nn.Conv2d(c, w, 1, stride=2, padding=0, bias=True) for w in widths)
        self.pad = nn.ConstantPad2d((0, 1, 0, 1), 0)
        self.bn = nn.BatchNorm2d(c, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        y = self.pad(x)
        return self.bn(torch.cat([self.convs[0](x), self.convs[1](y[:, :, 1:, 1:])], dim=1))


class Pooling(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.preprocess = None
        self.op = nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.op(inputs)


def biased_conv(c: int, k: int, s: int) -> nn.Module:
    conv = nn.Conv2d(c, c, k, stride=s, padding=k // 2, bias=True)
    return Chain(nn.ReLU(inplace=False), conv, nn.BatchNorm2d(c, affine=False))


def biased_separable(c: int, k: int, s: int) -> nn.Module:
    layers: list[nn.Module] = []
    for stride in (s, 1):
        layers += [
            nn.ReLU(inplace=False),
            nn.Conv2d(c, c, k, stride=stride, padding=k // 2, groups=c, bias=True),
            nn.Conv2d(c, c, 1, bias=True),
            nn.BatchNorm2d(c, affine=False),
        ]
    return Chain(*layers)


def biased_dilated(c: int, k: int, s: int) -> nn.Module:
    return Chain(
        nn.ReLU(inplace=False),
        nn.Conv2d(c, c, k, stride=s, padding=2 * (k // 2), dilation=2, groups=c, bias=True),
        nn.Conv2d(c, c, 1, bias=True),
        nn.BatchNorm2d(c, affine=False),
    )


class CellOfLists(nn.Module):
    """Three nodes; edges are lists in a dictionary, and every search method has a forward of its own."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        for i in range(1, 3):
            for j in range(i):
                ops = [Nothing(1), Skip(), biased_conv(c, 1, 1), biased_conv(c, 3, 1), Pooling(1)]
                self.edges[f"{i}<-{j}"] = nn.ModuleList(ops)
        self.edge2index = {key: i for i, key in enumerate(sorted(self.edges))}

    def forward(self, inputs: Tensor, weightss: Tensor) -> Tensor:
        nodes = [inputs]
        for i in range(1, 3):
            parts = []
            for j in range(i):
                key = f"{i}<-{j}"
                weights = weightss[self.edge2index[key]]
                parts.append(sum(op(nodes[j]) * w for op, w in zip(self.edges[key], weights, strict=True)))
            nodes.append(sum(parts))
        return nodes[-1]

    def forward_gdas(self, inputs: Tensor, hardwts: Tensor, index: Tensor) -> Tensor:
        nodes = [inputs]
        for i in range(1, 3):
            parts = []
            for j in range(i):
                key = f"{i}<-{j}"
                weights, chosen = hardwts[self.edge2index[key]], index[self.edge2index[key]].item()
                parts.append(
                    sum(
                        weights[k] * op(nodes[j]) if k == chosen else weights[k]
                        for k, op in enumerate(self.edges[key])
                    )
                )
            nodes.append(sum(parts))
        return nodes[-1]


class TwoForwards(nn.Module):
    """No ``forward`` at all."""

    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        ops = [Nothing(stride), Skip() if stride == 1 else Reduction(c)]
        ops += [biased_separable(c, 3, stride), biased_separable(c, 5, stride), biased_dilated(c, 3, stride)]
        self._ops = nn.ModuleList(ops)

    def forward_gdas(self, x: Tensor, weights: Tensor, index: int) -> Tensor:
        return self._ops[index](x) * weights[index]

    def forward_darts(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))


# ---- NASLib: primitives in a plain list, weights in an object beside the edge ---------------------------


class Primitive(nn.Module):
    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor, edge_data: object) -> Tensor:
        return self.op(x)


class MixedPrimitives(nn.Module):
    def __init__(self, primitives: list[nn.Module]) -> None:
        super().__init__()
        self.primitives = primitives
        for i, primitive in enumerate(primitives):
            self.add_module(f"primitive-{i}", primitive)

    def get_weights(self, edge_data: SimpleNamespace) -> Tensor:
        return edge_data.alpha

    def process_weights(self, weights: Tensor) -> Tensor:
        return torch.softmax(weights, dim=-1)

    def apply_weights(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x, None) for w, op in zip(weights, self.primitives, strict=True))

    def forward(self, x: Tensor, edge_data: SimpleNamespace) -> Tensor:
        return self.apply_weights(x, self.process_weights(self.get_weights(edge_data)))


# ---- NNI: named candidates, a parameter of its own that parameters() hides --------------------------------


class DictChoice(nn.Module):
    def __init__(self, choices: dict[str, nn.Module]) -> None:
        super().__init__()
        self.op_choices = nn.ModuleDict(choices)
        self.alpha = nn.Parameter(torch.randn(len(choices)))

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        results = torch.stack([op(*args, **kwargs) for op in self.op_choices.values()])
        shape = [-1] + [1] * (len(results.size()) - 1)
        return torch.sum(results * torch.softmax(self.alpha, -1).view(*shape), 0)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def named_parameters(self, *args: object, **kwargs: object) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in super().named_parameters():
            if name != "alpha":
                yield name, parameter

    def export(self) -> str:
        return list(self.op_choices)[int(torch.argmax(self.alpha))]


class NamedLayers(nn.Module):
    """The candidates are children; the softmax is one too, and no candidate."""

    def __init__(self, paths: dict[str, nn.Module], alpha: nn.Parameter) -> None:
        super().__init__()
        self.op_names = list(paths)
        for name, module in paths.items():
            self.add_module(name, module)
        self._arch_alpha = alpha
        self._softmax = nn.Softmax(-1)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        results = [getattr(self, name)(*args, **kwargs) for name in self.op_names]
        weights = self._softmax(self._arch_alpha)
        return sum(result * weight for result, weight in zip(results, weights, strict=True))


# ---- P-DARTS: dropout behind the identity, whose probability its network changes ---------------------------


class DropoutMixture(nn.Module):
    def __init__(self, c: int, stride: int, switch: list[bool], p: float) -> None:
        super().__init__()
        self.m_ops = nn.ModuleList()
        self.p = p
        for used, op in zip(switch, darts_candidates(c, stride).values(), strict=True):
            if used:
                self.m_ops.append(nn.Sequential(op, nn.Dropout(p)) if isinstance(op, Skip) and p > 0 else op)

    def update_p(self) -> None:
        for op in self.m_ops:
            if isinstance(op, nn.Sequential) and isinstance(op[0], Skip):
                op[1].p = self.p

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self.m_ops, strict=True))


# ---- PC-DARTS and DrNAS: a part of the channels ------------------------------------------------------------


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class PartialMixture(nn.Module):
    def __init__(self, c: int, stride: int, k: int = 4) -> None:
        super().__init__()
        self.C, self.stride, self.k = c, stride, k
        self._ops = nn.ModuleList(darts_candidates(c // k, stride).values())
        self.mp = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        part = x.shape[1] // self.k
        one, two = x[:, :part], x[:, part:]
        mixed = sum(w * op(one) for w, op in zip(weights, self._ops, strict=True))
        if mixed.shape[2] != x.shape[2]:
            two = self.mp(two)
        return shuffled(torch.cat([mixed, two], dim=1), self.k)


class GrowingMixture(PartialMixture):
    """Candidates of weight zero are left out, and ``wider`` gives all of them more channels."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        part = x.shape[1] // self.k
        one, two = x[:, :part], x[:, part:]
        mixed = sum(w * op(one) for w, op in zip(weights, self._ops, strict=True) if w != 0)
        if self.k == 1:
            return mixed
        two = two if mixed.shape[2] == x.shape[2] else self.mp(two)
        return shuffled(torch.cat([mixed, two], dim=1), self.k)

    def wider(self, k: int) -> None:
        self.k = k
        for part in self._ops.modules():
            if isinstance(part, nn.Conv2d):
                depthwise = part.groups > 1
                index = torch.arange(self.C // k) % part.in_channels
                outputs = torch.arange(part.out_channels * (self.C // k) // part.in_channels)
                weight = part.weight[outputs % part.out_channels]
                part.weight = nn.Parameter((weight if depthwise else weight[:, index]).detach().clone())
                part.out_channels, part.in_channels = len(outputs), len(index)
                part.groups = len(index) if depthwise else 1
            elif isinstance(part, nn.BatchNorm2d):
                index = torch.arange(self.C // k) % part.num_features
                part.running_mean, part.running_var = part.running_mean[index], part.running_var[index]
                part.num_features = len(index)
