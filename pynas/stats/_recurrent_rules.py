"""Recurrent layers as their modules call them: dense and packed sequences, single cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pynas._errors import UserError
from pynas._plural import counted
from pynas.stats._call_recorder import CallRecorder
from pynas.stats._following import IrregularError
from pynas.stats._layout import Layout
from pynas.stats._packed_sequences import Packing, order_of, pack, sort
from pynas.stats._recurrent import Direction, Uses, run
from pynas.stats._recurrent_kinds import GRU, LSTM, Elman
from pynas.stats._recurrent_steps import Recurrence, Steps, Weights

Func = Callable[..., Any]
_VF = torch._C._VariableFunctions

KINDS: dict[str, Recurrence] = {
    "lstm": LSTM(),
    "gru": GRU(),
    "rnn_tanh": Elman(relu=False),
    "rnn_relu": Elman(relu=True),
}


def _samples(recorder: CallRecorder, input: Tensor, dim: int) -> Layout:
    """How the rows of ``input`` along ``dim`` belong to samples.

    Raises:
        IrregularError: The samples are in another dimension.
    """
    layout = recorder.layout(input)
    if layout.dim != dim:
        raise IrregularError
    return replace(layout, dim=0)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a recurrent layer, dense or packed, by the names of its arguments."""

    input: Tensor
    batch_sizes: Tensor | None
    hx: Tensor | Sequence[Tensor]
    params: Sequence[Tensor]
    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool = False


def _dense(input: Tensor, *args: Any, **kwargs: Any) -> _Call:
    return _Call(input, None, *args, **kwargs)


def _packed(data: Tensor, *args: Any, **kwargs: Any) -> _Call:
    return _Call(data, *args, **kwargs)


def _claim(
    recorder: CallRecorder, operator: str, params: Sequence[Tensor], biases: bool, cells: int
) -> list[tuple[Weights, Uses]] | None:
    """The parameters of each of ``cells`` layers and directions; None when nobody asks for any of them."""
    if any(p.requires_grad and not recorder.comes_from(p) for p in params):
        raise IrregularError
    each, use = len(params) // cells, recorder.collector.use
    found = []
    for k in range(cells):
        w_ih, w_hh, *rest = params[k * each : (k + 1) * each]
        b_ih, b_hh = (rest[0], rest[1]) if biases else (None, None)
        w_hr = rest[-1] if len(rest) % 2 else None
        uses = Uses(
            use(operator, w_ih, b_ih, matrix=True),
            use(operator, w_hh, b_hh, matrix=True),
            None if w_hr is None else use(operator, w_hr, None, matrix=True),
        )
        others = (None if p is None else p.detach() for p in (b_ih, b_hh, w_hr))
        found.append((Weights(w_ih.detach(), w_hh.detach(), *others), uses))
    if not any((u.ih, u.hh, u.hr) != (None, None, None) for _, u in found):
        return None
    recorder.once_only()
    return found


def _follows(recorder: CallRecorder, input: Tensor, params: Sequence[Tensor]) -> bool:
    """Whether the pass takes gradients of what meets samples here."""
    if recorder.log is not None or not recorder.tracks or not torch.is_grad_enabled():
        return False
    return recorder.is_sample(input) and any(recorder.comes_from(p) for p in params)


def _dtypes(x: Tensor, state: Tensor, keeps: bool) -> tuple[torch.dtype, torch.dtype]:
    """In which dtype to run, and which the outputs have: under autocast some keep that of their state."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype, x.dtype
    dtype = torch.get_autocast_dtype(device)
    return dtype, torch.promote_types(dtype, state.dtype) if keeps else dtype


def _sequence(operator: str, recorder: CallRecorder, func: Func, *args: Any, **kwargs: Any) -> Any:
    """Several layers, each in one or two directions."""
    # A packed call has the batch sizes before its states, so that the parameters come fourth.
    packed = "batch_sizes" in kwargs or (len(args) > 3 and isinstance(args[3], list | tuple))
    call = (_packed if packed else _dense)(*args, **kwargs)
    directions = 2 if call.bidirectional else 1
    if not _follows(recorder, call.input, call.params):
        return NotImplemented
    claimed = _claim(recorder, operator, call.params, call.has_biases, call.num_layers * directions)
    if claimed is None:
        return NotImplemented
    kind = KINDS[operator]
    states = (call.hx,) if isinstance(call.hx, Tensor) else tuple(call.hx)
    dtype, returned = _dtypes(call.input, states[0], operator == "gru")
    h0, c0 = states[0].to(dtype), states[1].to(dtype) if len(states) > 1 else None

    order: Tensor | None = None
    packing: Packing | None = None
    x = call.input.to(dtype)
    if call.batch_sizes is not None:
        order = order_of(recorder, call.batch_sizes)
        order = None if order is None else order.to(x.device)
        packing = Packing.of(call.batch_sizes, x.device)
        x = packing.padded(x)
    elif call.batch_first:
        x = x.transpose(0, 1)
    layout = Layout(0)
    if packing is None:
        layout = _samples(recorder, call.input, 0 if call.batch_first else 1)
    elif x.shape[1] != recorder.batch:
        raise UserError(
            f"model: a recurrent layer got a packed sequence of {x.shape[1]}, not of the "
            f"{counted(recorder.batch, 'sample')}"
        )

    lasts: list[Tensor] = []
    cells: list[Tensor] = []
    for k in range(0, len(claimed), directions):
        outputs = []
        for d, (weights, uses) in enumerate(claimed[k : k + directions]):
            steps = Steps(packing.sizes if packing is not None else None, reverse=d == 1)
            direction = Direction(kind, weights.to(dtype), steps, uses, recorder.collector, order, layout)
            cell = None if c0 is None else c0[k + d]
            y, last, c = run(recorder.anchor, x, h0[k + d], cell, direction)
            outputs.append(y)
            lasts.append(last)
            cells += [] if c is None else [c]
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if call.dropout and call.train and k + directions < len(claimed):
            # On the elements that there are, in PyTorch's order, so that one seed drops the same ones.
            x = F.dropout(x if packing is None else packing.packed(x), call.dropout)
            x = x if packing is None else packing.padded(x)
    if packing is not None:
        x = packing.packed(x)
    elif directions == 1 and kind.cells is False:
        x = x.clone()  # backward reads the states, and the model may change what it gets in place
    y = x.transpose(0, 1) if call.batch_first else x
    return tuple(t.to(returned) for t in (y, *(torch.stack(s) for s in (lasts, cells) if s)))


def _cell(
    operator: str,
    recorder: CallRecorder,
    func: Func,
    input: Tensor,
    hx: Tensor | Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    """One step of one layer."""
    biases = b_ih is not None and b_hh is not None
    params = [p for p in (w_ih, w_hh, b_ih, b_hh) if p is not None]
    claimed = None
    if _follows(recorder, input, params):
        claimed = _claim(recorder, f"{operator}_cell", params, biases, 1)
    if claimed is None:
        return NotImplemented
    layout = _samples(recorder, input, 0)
    states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
    dtype, returned = _dtypes(input, states[0], not operator.startswith("rnn"))
    h0, c0 = states[0].to(dtype), states[1].to(dtype) if len(states) > 1 else None
    weights, uses = claimed[0]
    kind, steps = KINDS[operator], Steps(None, reverse=False)
    direction = Direction(kind, weights.to(dtype), steps, uses, recorder.collector, None, layout)
    _, h, c = run(recorder.anchor, input.to(dtype).unsqueeze(0), h0, c0, direction)
    return h.to(returned) if c is None else (h.to(returned), c.to(returned))


RECURRENT_RULES: dict[Func, Func] = {
    **{getattr(_VF, kind): partial(_sequence, kind) for kind in KINDS},
    **{getattr(_VF, f"{kind}_cell"): partial(_cell, kind) for kind in KINDS},
    _VF._pack_padded_sequence: pack,
    **dict.fromkeys((torch.sort, Tensor.sort, torch.argsort, Tensor.argsort), sort),
}
