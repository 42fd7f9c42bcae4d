# ruff: noqa: E501 - one network a line
"""One call each of what PyTorch offers, with samples, parameters and tensors computed from parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.networks import Network, values


class Call(nn.Module):
    """``call(self, x)`` with a layer, a norm, a vector, a matrix and a scalar."""

    def __init__(self, call: Callable[[Call, Tensor], Any]) -> None:
        super().__init__()
        self.f, self.n = nn.Linear(4, 4), nn.LayerNorm(4)
        self.v, self.m = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4, 4))
        self.s = nn.Parameter(torch.tensor(0.7))
        self.t = nn.Parameter(torch.randn(1, 4, 4))
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def _written(i: Any) -> Callable[[Call, Tensor], Tensor]:
    def call(k: Call, x: Tensor) -> Tensor:
        y = k.f(x)
        y[i] = k.v
        return y.square()

    return call


def _filled(k: Call, x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape[0], 2, 4, 4)
    y[:, 0] = k.m
    y[:, 1] = k.f(x)
    return y.prod(1)


def _bias_part(k: Call, x: Tensor) -> Tensor:
    b = k.v.clone()
    b[1:3].zero_()
    return F.linear(x, k.m, b)


def _bias_filled(k: Call, x: Tensor) -> Tensor:
    b = torch.zeros_like(k.v)
    b[::2] = k.v[1::2]
    return F.linear(x, k.m, b)


def _bias_scaled(k: Call, x: Tensor) -> Tensor:
    b = k.v.clone()
    b[:2] *= k.s
    b += k.v
    return F.linear(x, k.m, b)


def _weight_written(k: Call, x: Tensor) -> Tensor:
    w = k.m.t().clone()
    w[0] = k.v
    w.t().view(-1)[3:5].mul_(3)
    return F.linear(x, w) + w.diagonal()


def _masked(k: Call, x: Tensor) -> Tensor:
    y = k.f(x).masked_fill(x > 0.5, 0.0)
    return torch.where(x > 0, y, k.v) + y.masked_fill(x > 1, 2.0) * k.m


def _loop(k: Call, x: Tensor) -> Tensor:
    return torch.stack([F.linear(row, k.m, k.v) @ k.f.weight for row in x])


def _by_row(k: Call, x: Tensor) -> Tensor:
    return torch.cat([k.f(x[i : i + 1]) * k.v for i in range(x.shape[0])])


def _vmapped(k: Call, x: Tensor) -> Tensor:
    return torch.vmap(lambda row: torch.tanh(row @ k.m + k.v))(x)


def _jacobian(k: Call, x: Tensor) -> Tensor:
    return torch.vmap(torch.func.jacrev(lambda row: torch.tanh(row @ k.m).sum(0)))(x)


def _tangent(k: Call, x: Tensor) -> Tensor:
    return torch.func.jvp(lambda z: torch.tanh(z @ k.m + k.v), (x,), (torch.ones_like(x),))[1]


def _gradient(k: Call, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(torch.tanh(k.n(k.f(x)) * k.v).sum(), x, create_graph=True)[0]


def _no_grad(k: Call, x: Tensor) -> Tensor:
    with torch.no_grad():
        w = k.m * 2
    return x @ (w + k.m) + k.v.detach() * k.v


def _straight(k: Call, x: Tensor) -> Tensor:
    y = k.f(x)
    hard = (y > k.v).to(y.dtype)
    return hard + (y * k.s).sigmoid() - (y * k.s).sigmoid().detach()


def _as_strided(k: Call, x: Tensor) -> Tensor:
    y = k.f(x).contiguous()
    return y.as_strided((x.shape[0], 3, 4), (16, 4, 1), 4) * k.v


def _flipped(k: Call, x: Tensor) -> Tensor:
    return k.f(x).flip(0) * k.v @ k.m + k.f(x).flip(0)


def _sorted(k: Call, x: Tensor) -> Tensor:
    return torch.sort(k.f(x), dim=1)[0] * k.v + torch.topk(k.f(x) * k.m, 2, 1)[0].sum(1, keepdim=True)


def _permuted_twice(k: Call, x: Tensor) -> Tensor:
    y = k.f(x).permute(1, 0, 2).reshape(4 * x.shape[0], 4)
    y = k.n(y) @ k.m + k.v
    return y.view(4, x.shape[0], 4).permute(1, 0, 2).contiguous()


def _mixed_fold(k: Call, x: Tensor) -> Tensor:
    b = x.shape[0]
    y = torch.cat([k.f(x), k.f(x) * 2]).view(2, b, 4, 4).transpose(0, 2).reshape(-1, 4)
    return (k.n(y) * k.v).view(4, b, 2, 4).transpose(0, 1).reshape(b, -1)


def _square_attention(k: Call, x: Tensor) -> Tensor:
    y = x.transpose(0, 1) @ k.m
    a = torch.einsum("nbd,mbd->bnm", y, y) + k.t
    return torch.einsum("bnm,mbd->bnd", a.softmax(-1), y)


def _accumulated(k: Call, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 4, dtype=x.dtype)
    for i in range(4):
        y = y + k.m[i] * x[:, i]
        y.add_(k.v, alpha=0.5)
    return y


def _kept(k: Call, x: Tensor) -> Tensor:
    """What eval mode keeps from one call for the next."""
    if not hasattr(k, "cache"):
        k.cache = {}
    if "table" not in k.cache:
        k.cache["table"] = k.m[torch.arange(4)[:, None] - torch.arange(4)]
    return k.f(x) + k.cache["table"].sum(-1)


CALLS: dict[str, Callable[[Call, Tensor], Any]] = {
    "split": lambda k, x: torch.split(k.f(x) * k.v, 2, -1)[0] * x[..., :2],
    "norm": lambda k, x: k.f(x) * torch.norm(k.v) + torch.norm(k.f(x), dim=-1, keepdim=True),
    "cdist": lambda k, x: torch.cdist(k.f(x), x + k.v) + torch.cdist(x, k.m),
    "cdist_wide": lambda k, x: torch.cdist(x, k.t),
    "stft": lambda k, x: torch.stft(k.f(x).flatten(1) * k.s, 8, return_complex=True, window=torch.ones(8).double()).abs(),
    "broadcast": lambda k, x: sum(torch.broadcast_tensors(k.v, k.f(x))),
    "atleast": lambda k, x: torch.atleast_3d(k.f(x)) * k.v,
    "block_diag": lambda k, x: x @ torch.block_diag(k.m[:2, :2], k.m[2:, 2:]),
    "einsum_three": lambda k, x: torch.einsum("bnd,d,e->bne", x, k.v, k.v),
    "einsum_batch_last": lambda k, x: torch.einsum("bnd,de->neb", x, k.m).permute(2, 0, 1),
    "einsum_trace": lambda k, x: torch.einsum("bnn,ne->be", x, k.m),
    "einsum_ellipsis": lambda k, x: torch.einsum("...d,ed->...e", x, k.m),
    "einsum_lists": lambda k, x: torch.einsum(x, [0, 1, 2], k.m, [2, 3], [0, 1, 3]),
    "interpolate": lambda k, x: F.interpolate(k.f(x) + k.v, scale_factor=2.0, mode="linear"),
    "interpolated_table": lambda k, x: x + F.interpolate(k.m[None, None], size=(4, 8), mode="bicubic")[0, :, :, ::2],
    "max_pool": lambda k, x: F.max_pool1d(k.f(x) * k.v, 2),
    "max_pool_indices": lambda k, x: F.max_pool1d_with_indices(k.f(x) + k.v, 2)[0],
    "lp_pool": lambda k, x: F.lp_pool1d((k.f(x) * k.v).exp(), 2, 2),
    "adaptive": lambda k, x: F.adaptive_max_pool2d((k.f(x) + k.v)[:, None], 2),
    "unpool": lambda k, x: F.max_unpool1d(*F.max_pool1d_with_indices(k.f(x) * k.v, 2), 2),
    "normalize": lambda k, x: F.normalize(k.f(x) * k.v) @ F.normalize(k.m, dim=0),
    "distance": lambda k, x: F.pairwise_distance(k.f(x), k.v),
    "cosine": lambda k, x: F.cosine_similarity(k.f(x), k.m, dim=-1),
    "cosine_all": lambda k, x: F.cosine_similarity(k.f(x)[:, :, None], k.m, dim=-1),
    "nll": lambda k, x: F.gaussian_nll_loss(k.f(x), x, k.v.exp().expand_as(x), reduction="none"),
    "smooth_l1": lambda k, x: F.smooth_l1_loss(k.f(x), k.m.expand_as(x), reduction="none"),
    "kl": lambda k, x: F.kl_div(k.f(x).log_softmax(-1), k.v.softmax(0).expand_as(x), reduction="none"),
    "attention": lambda k, x: F.multi_head_attention_forward(
        *[x.transpose(0, 1)] * 3, 4, 2, torch.cat([k.m] * 3), torch.cat([k.v] * 3), k.t[:, :1], k.t[:, 1:2], True, 0.0,
        k.f.weight, k.f.bias,
    )[0].transpose(0, 1),
    "attention_keys": lambda k, x: F.scaled_dot_product_attention(k.f(x), k.t, k.t * 2),
    "attention_mask": lambda k, x: F.scaled_dot_product_attention(x, k.f(x), x, attn_mask=k.m),
    "attention_queries": lambda k, x: F.scaled_dot_product_attention(k.t.expand(x.shape[0], 4, 4), x, x),
    "layer_norm_two": lambda k, x: F.layer_norm(x, (4, 4), k.m, k.t[0]),
    "rms_norm": lambda k, x: F.rms_norm(x, (4,), k.v.exp()) + F.rms_norm(k.f(x), (4, 4), k.m),
    "group_norm": lambda k, x: F.group_norm(k.f(x), 2, k.v, k.m[0]) + F.group_norm(x, 4, k.m.sum(0)),
    "instance_norm": lambda k, x: F.instance_norm(k.f(x), weight=k.v, bias=k.m[1]),
    "batch_norm_table": lambda k, x: F.batch_norm(x, torch.zeros(4).double(), torch.ones(4).double(), k.v, k.v * 2),
    "prelu": lambda k, x: F.prelu(x, k.v) + F.prelu(k.f(x), k.s[None]),
    "glu": lambda k, x: F.glu(k.f(x) * k.v),
    "embedding": lambda k, x: F.embedding(x.argmax(-1), k.m) + F.embedding(x.argmin(-1), k.f.weight, max_norm=None),
    "embedding_derived": lambda k, x: F.embedding(x.argmax(-1), k.m * k.v) @ (k.m * k.s),
    "embedding_bag": lambda k, x: F.embedding_bag(x.argmax(-1), k.m, mode="sum"),
    "embedding_bag_weights": lambda k, x: F.embedding_bag(
        x.argmax(-1), k.m, mode="sum", per_sample_weights=k.f(x)[..., 0]
    ),
    "one_hot": lambda k, x: F.one_hot(x.argmax(-1), 4).double() @ k.m + k.v[x.argmax(-1)][..., None],
    "index": lambda k, x: k.m[x.argmax(-1), :, None][..., 0] * k.v[x.argmin(-1)].unsqueeze(-1),
    "index_select": lambda k, x: k.f(x).index_select(1, torch.tensor([3, 0, 0])) @ k.m.index_select(1, torch.tensor([2, 2])),
    "take": lambda k, x: torch.take(k.m, x.argmax(-1) * 3) + torch.gather(k.m.expand_as(x), 2, x.argsort(-1)).sum(-1),
    "gather_rows": lambda k, x: torch.gather(k.f(x), 1, x.argsort(1)) + torch.gather(k.m.expand_as(x), 1, x.argsort(1)),
    "take_along": lambda k, x: torch.take_along_dim(k.f(x) * k.v, x.argsort(1), 1),
    "scatter": lambda k, x: torch.zeros_like(x).scatter_add(1, x.argsort(1), k.f(x) * k.v),
    "index_add": lambda k, x: k.f(x).index_add(1, torch.tensor([0, 0, 3]), k.m[:3].expand(x.shape[0], 3, 4)),
    "index_put": lambda k, x: k.f(x).index_put((torch.arange(x.shape[0]), x[:, 0].argmax(-1)), k.v),
    "repeat_interleave": lambda k, x: k.n(k.f(x).repeat_interleave(3, 0)).view(x.shape[0], 3, 4, 4) * k.v,
    "repeat": lambda k, x: (k.n(k.f(x).repeat(3, 1, 1)) * k.v).view(3, -1, 4, 4).sum(0),
    "tile": lambda k, x: k.f(x) + k.v.tile(x.shape[0], 4, 1) + k.m.repeat(x.shape[0], 1, 1),
    "expand_folded": lambda k, x: (k.f(x).reshape(-1, 4) + k.v.expand(x.shape[0] * 4, 4)).view(-1, 4, 4),
    "table_folded": lambda k, x: (x.reshape(-1, 4) * k.m.repeat(x.shape[0], 1) + k.v).view(-1, 4, 4),
    "table_interleaved": lambda k, x: (x.transpose(0, 1).reshape(-1, 4) + k.m.repeat_interleave(x.shape[0], 0)).view(4, -1, 4).transpose(0, 1),
    "roll": lambda k, x: k.f(x).roll(1, 1) * k.v + k.m.roll((1, 2), (0, 1)),
    "flip_batch": _flipped,
    "roll_batch": lambda k, x: (k.f(x).roll(1, 0) * k.v).roll(-1, 0),
    "cat_rolled": lambda k, x: torch.cat([k.f(x)[1:], k.f(x)[:1]]) * k.v @ k.m,
    "reversed": lambda k, x: torch.stack(k.f(x).unbind(0)[::-1]) * k.v,
    "reordered": lambda k, x: k.n(k.f(x)[torch.arange(x.shape[0] - 1, -1, -1)]) * k.v,
    "sorted_by": lambda k, x: k.f(x[x[:, 0, 0].argsort()]) * k.v,
    "copies_cut": lambda k, x: k.f(x) + k.v.expand(x.shape[0] * 4, 1, 4)[: x.shape[0]],
    "copies_last": lambda k, x: k.f(x) + (k.v.expand(x.shape[0] * 4, 1, 4) * k.s)[-x.shape[0] :],
    "copies_strided": lambda k, x: k.f(x) + k.v.expand(x.shape[0] * 4, 1, 4)[::4],
    "copies_stacked": lambda k, x: k.f(x) + torch.stack([k.v] * x.shape[0])[:, None],
    "halves_swapped": lambda k, x: k.f(torch.cat(x.tensor_split([1])[::-1])) + k.v,
    "transposed_fold": lambda k, x: k.n(k.f(x).transpose(0, 1).reshape(x.shape[0], 4, 4)) * k.v,
    "sort": _sorted,
    "cumulative": lambda k, x: (k.f(x) * k.v).cumsum(1) + k.m.cumsum(0) * x.cumprod(2),
    "logsumexp": lambda k, x: torch.logsumexp(k.f(x) * k.v, 1) + torch.logsumexp(k.m, 0),
    "var_mean": lambda k, x: torch.cat(torch.var_mean(k.f(x) * k.v, 1), 1) + torch.var_mean(k.m, 0)[0].repeat(2),
    "outer": lambda k, x: torch.outer(k.v, k.v) @ x + torch.kron(k.m[:2, :2], k.m[2:, 2:]) * x,
    "cross": lambda k, x: torch.linalg.cross(k.f(x)[..., :3], k.m[:, :3].expand(x.shape[0], 4, 3)),
    "solve": lambda k, x: torch.linalg.solve(k.m + 5 * torch.eye(4).double(), k.f(x)),
    "solve_samples": lambda k, x: torch.linalg.solve(k.f(x) + 9 * torch.eye(4).double(), k.m.expand_as(x)),
    "inverse": lambda k, x: torch.linalg.inv(x @ x.mT + (k.m @ k.m.T) + torch.eye(4).double()),
    "matrix_exp": lambda k, x: torch.matrix_exp(k.m - k.m.T) @ x,
    "eigh": lambda k, x: torch.linalg.eigvalsh(k.f(x) @ k.f(x).mT + k.m @ k.m.T),
    "qr": lambda k, x: torch.linalg.qr(k.m)[0] @ x,
    "svd": lambda k, x: x @ torch.linalg.svdvals(k.m).diag(),
    "multi_dot": lambda k, x: x @ torch.linalg.multi_dot([k.m, k.f.weight, k.m.T]),
    "trilinear": lambda k, x: torch.einsum("bni,ij,bmj->bnm", x, k.m, k.f(x)),
    "bilinear": lambda k, x: F.bilinear(x, k.f(x), k.t.expand(2, 4, 4), k.v[:2]),
    "baddbmm": lambda k, x: torch.baddbmm(k.t.expand_as(x), k.f(x), x, beta=0.5) + torch.bmm(x, k.t.expand_as(x)),
    "baddbmm_bare": lambda k, x: torch.baddbmm(k.t, k.f(x), x),
    "addbmm": lambda k, x: torch.stack([torch.addmm(k.v, row, k.m) for row in x.unbind(0)]),
    "loop": _loop,
    "rows": _by_row,
    "vmap": _vmapped,
    "jacobian": _jacobian,
    "tangent": _tangent,
    "gradient": _gradient,
    "no_grad": _no_grad,
    "straight_through": _straight,
    "as_strided": _as_strided,
    "permuted_twice": _permuted_twice,
    "mixed_fold": _mixed_fold,
    "square_attention": _square_attention,
    "accumulated": _accumulated,
    "written_column": _written((slice(None), 0)),
    "written_mask": _written((Ellipsis, slice(None), slice(None))),
    "filled": _filled,
    "bias_part": _bias_part,
    "bias_filled": _bias_filled,
    "bias_scaled": _bias_scaled,
    "weight_written": _weight_written,
    "masked": _masked,
    "kept": _kept,
    "conv_table": lambda k, x: F.conv2d(x[:, None], k.m[None, None] * k.s, k.v[:1], padding=2),
    "conv_input_table": lambda k, x: F.conv1d(k.m.expand_as(x) * x, k.t.permute(1, 2, 0)),
    "conv_per_sample": lambda k, x: F.conv1d(k.m.reshape(1, 4, 4).repeat(1, x.shape[0], 1), x.reshape(-1, 4, 4)[..., :2], groups=x.shape[0]).view(x.shape[0], -1, 3),
    "conv_groups": lambda k, x: F.conv1d(x.reshape(1, -1, 4), (k.t * k.s).permute(1, 0, 2).repeat(x.shape[0], 1, 1), groups=4 * x.shape[0]).view(x.shape[0], 4, 1),
    "unfold": lambda k, x: (x.unfold(1, 3, 1) * k.v[:3]).sum(-1) @ k.m.unfold(0, 2, 1)[..., 0].T,
    "pad": lambda k, x: F.pad(k.f(x), (1, 1, 1, 0), mode="replicate") @ F.pad(k.m, (0, 0, 1, 1)),
    "complex": lambda k, x: torch.view_as_real(torch.complex(k.f(x), x) * torch.polar(k.v.exp(), k.m)),
    "fft": lambda k, x: torch.fft.ifft(torch.fft.fft(x, dim=1) * torch.fft.fft(k.m, dim=0), dim=1).real,
    "scalar_power": lambda k, x: x.abs().pow(k.s) + k.s ** k.f(x) + torch.pow(2.0, k.v),
    "rsub": lambda k, x: (1 - k.v) * x + 2 / (k.m.exp() + x.square()) - k.s,
    "clamp": lambda k, x: torch.clamp(x, -k.v.abs(), k.v.abs()) + torch.minimum(k.f(x), k.m),
    "where_scalar": lambda k, x: torch.where(x > 0, k.s, 0.0) + torch.where(k.m > 0, x, k.f(x)),
    "stack_tables": lambda k, x: torch.stack([x * k.v, k.m.expand_as(x), k.t.expand_as(x)], 1).amax(1),
    "cat_tables": lambda k, x: torch.cat([k.t.expand_as(x), x, k.m[None].repeat(x.shape[0], 1, 1)], 1) @ k.m,
    "hstack": lambda k, x: torch.hstack([k.f(x), k.t.expand(x.shape[0], -1, -1)]) * k.v,
    "mean_tables": lambda k, x: (k.t.expand_as(x) * k.s).mean((1, 2)) + k.f(x).mean((1, 2)),
    "table_only": lambda k, x: (k.t.expand_as(x), k.m.unsqueeze(0).repeat(x.shape[0], 1, 1) * k.s),
    "weights_output": lambda k, x: (k.f(x), k.m.square().sum().expand(x.shape[0], 1)),
    "scalar_repeated": lambda k, x: x * k.s.repeat(x.shape[0]).view(-1, 1, 1) + k.s.expand(x.shape[0], 4, 4) * k.f(x),
    "getitem_none": lambda k, x: x * k.v[None, :, None] + k.m[None][..., [3, 2, 1, 0]] + k.m[:, x.shape[0] % 2],
    "same_twice": lambda k, x: k.f(k.f(x) + k.v) * k.v + k.n(k.n(x)),
    "tied_everywhere": lambda k, x: F.linear(x, k.m, k.m[0]) @ k.m.T + k.m + k.m.diagonal() * k.m.trace(),
    "nested": lambda k, x: {"a": [k.f(x), (k.n(x) * k.v,)], "b": None},
    "in_place_chain": lambda k, x: k.f(x).add_(k.v).mul_(k.s).sub_(k.m).tanh_(),
    "out_argument": lambda k, x: torch.cat([k.f(x), k.v.expand(x.shape[0], 1, 4)], 1),
    "chunk_heads": lambda k, x: torch.cat([h @ w for h, w in zip(k.f(x).chunk(2, -1), k.m.chunk(2, 0), strict=True)], -1),
    "swap": lambda k, x: torch.swapaxes(k.f(x), 0, 1).mul(k.v).movedim(1, 0).contiguous() @ k.m.adjoint(),
    "view_dtype": lambda k, x: k.f(x).double().to(torch.float64).type_as(x) * k.v.to(x),
    "float_detour": lambda k, x: (k.v.float() * x.float()).double() + k.f(x),
    "item": lambda k, x: k.f(x) * k.s.item() + k.s,
    "list_of_parameters": lambda k, x: sum(p.sum() for p in (k.v, k.m, k.s)) * x,
    "norm_of_all": lambda k, x: k.f(x) / torch.cat([p.flatten() for p in (k.v, k.m)]).norm(),
    "weight_drop": lambda k, x: F.linear(x, F.dropout(k.m, 0.5, training=False), k.v),
    "gumbel": lambda k, x: (k.f(x) * k.v).softmax(1).mT @ x,
    "batch_dot": lambda k, x: (k.f(x) * k.m).sum((1, 2)) + torch.tensordot(x, k.m, 2),
    "tensordot_swapped": lambda k, x: torch.tensordot(k.m, x, ([0], [1])).movedim(1, 0),
    "matmul_left": lambda k, x: k.m @ x + (k.v @ x)[:, None],
    "vector_left": lambda k, x: (k.v @ x) * (x @ k.v) + torch.matmul(k.t, x)[:, 0],
    "mm_flat": lambda k, x: torch.mm(x.reshape(-1, 4), k.m).view_as(x) + torch.mv(x.reshape(-1, 4), k.v).view(-1, 4, 1),
    "mm_transposed": lambda k, x: torch.mm(k.m, x.reshape(-1, 4).t()).t().reshape_as(x),
    "first_sample_free": lambda k, x: k.f(x) * (x[:, :1] > 0),
    "nan_to_num": lambda k, x: torch.nan_to_num(k.f(x) / (x.abs() + 0.1)) * k.v,
    "searchsorted": lambda k, x: k.v[torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]).double())] * x,
    "histogram_free": lambda k, x: k.f(x).softmax(-1).unsqueeze(-1).mul(k.m).sum(-2),
    "logcumsumexp": lambda k, x: torch.logcumsumexp(k.f(x) * k.v, 1),
    "trapezoid": lambda k, x: torch.trapezoid(k.f(x), k.v.cumsum(0)) + torch.diff(k.m, dim=0).sum(),
    "renorm": lambda k, x: x @ k.m.renorm(2, 0, 1.0),
    "cov": lambda k, x: x @ torch.cov(k.m) + torch.corrcoef(k.m)[0],
    "vander": lambda k, x: torch.triu(k.m) @ torch.tril(k.f(x)) + torch.diag_embed(k.v),
    "chain_of_views": lambda k, x: k.f(x).unflatten(2, (2, 2)).permute(0, 3, 1, 2).flatten(2).mul(k.m.view(2, 8)[:, :8]).sum(1),
}  # fmt: skip


def networks() -> list[Network]:
    """One network for each call; with as many samples as there are positions, too."""
    return [
        Network(
            f"call_{name}", "calls", lambda call=call: Call(call), values(4, 4), batches=(5, 4),
            tolerance=1e-5 if name == "float_detour" else 1e-9,
        )
        for name, call in CALLS.items()
    ]  # fmt: skip
