"""Which parameters are weights: what multiplies its input, whatever module or computation holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.stats._functions import is_python, name_of
from pynas.stats._marks import Marks
from pynas.stats._mixing import outputs_of, tensors_of, weights_of
from pynas.stats.computed_weights import has_computed_weights, held
from pynas.stats.data import call_model, cut, leaves, writable
from pynas.stats.eager import check_readable
from pynas.stats.memory_format import check_format
from pynas.stats.overrides import without_override_check
from pynas.stats.state import preserved

MATRIX_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Bilinear
)  # fmt: skip
# Layers whose parameters of two or more dimensions multiply nothing.
OTHERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
# By these, values leave torch; by those, numbers become tensors.
LEAVE = {
    "numpy", "tolist", "item", "__array__", "__dlpack__", "__float__", "__int__", "__index__", "__complex__",
    "untyped_storage", "storage", "typed_storage", "data_ptr",
}  # fmt: skip
MADE_OF_NUMBERS = {
    "tensor", "as_tensor", "asarray", "from_numpy", "frombuffer", "from_dlpack", "scalar_tensor", "full",
    "full_like", "new_tensor", "new_full", "fill_", "setitem", "sparse_coo_tensor", "complex",
}  # fmt: skip
HOLDERS = (Tensor, list, tuple, dict)


def matrix_names(model: nn.Module) -> list[str]:
    """Weights of convolutions, linear and recurrent layers and attention, by name; a shared one once."""
    found: dict[int, None] = {}
    for module in model.modules():
        for key in _own(module):
            weight = module._parameters.get(key)
            if weight is not None:
                found[id(weight)] = None
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[i] for i in found]


def _own(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, nn.MultiheadAttention):
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return tuple(key for key in module._parameters if key.startswith("weight"))
    return ("weight",) if isinstance(module, MATRIX_LAYERS) else ()


def published_names(model: nn.Module) -> frozenset[str]:
    """Weights that code of the literature counts: the attribute ``weight`` of Conv2d and Linear modules."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = set()
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            own = f"{prefix}.weight" if prefix else "weight"
            found.add(names.get(id(module._parameters.get("weight")), own))
    return frozenset(found)


def check_real(model: nn.Module, what: str) -> None:
    """UserError where parameters are complex, for ``what`` is defined for real ones."""
    name = next((name for name, p in model.named_parameters() if p.is_complex()), None)
    if name is not None:
        raise UserError(
            f"model: parameter {name!r} holds complex numbers, and {what} is defined for real ones; make its "
            "real and imaginary parts parameters of their own"
        )


def weight_names(model: nn.Module, inputs: Any) -> list[str]:
    """The same with every other parameter that multiplies something in a forward pass of two samples."""
    known = matrix_names(model)
    if not _others(model, known):
        return known
    few = writable(cut(inputs, 0, min(2, leaves(inputs)[0].shape[0])))
    try:
        found = _multiplying(model, few, differentiable=False)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        found = _multiplying(
            model, writable(few), differentiable=True
        )  # a forward that takes gradients by its weights
    return [name for name, _ in model.named_parameters() if name in found or name in known]


def _multiplying(model: nn.Module, few: Any, *, differentiable: bool) -> set[str]:
    """Parameters that multiply something in a forward pass; all of them with gradients if so asked."""
    # With gradients, for a forward may take some of its own.
    watch = ProductWatch(model, few)
    with preserved(model), torch.enable_grad(), watch:
        if differentiable:
            for p in model.parameters():
                p.requires_grad_(p.is_floating_point() or p.is_complex())
        call_model(model, few)
    return watch.found


def weight_tensors(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The same as tensors; one that is computed (weight norm) once, by its attribute, as in training."""
    check_readable(model)
    with held(model) if has_computed_weights(model) else nullcontext():
        return {name: model.get_parameter(name).detach() for name in weight_names(model, inputs)}


def _others(model: nn.Module, known: list[str]) -> bool:
    """Whether there are parameters of two dimensions or more of which the kind of module says nothing."""
    settled = {id(model.get_parameter(name)) for name in known}
    for module in model.modules():
        if not isinstance(module, OTHERS) and any(
            p is not None and p.dim() > 1 and id(p) not in settled for p in module._parameters.values()
        ):
            return True
    return False


class ProductWatch(TorchFunctionMode):
    """Notes parameters, and what is computed from them without samples, among the factors of products.

    A tensor that is neither the model's own nor put out by a call that was seen (but by compiled code, numpy,
    an autograd function of the model's own) is of samples, as far as anyone can tell.

    Args:
        model: Whose parameters.
        samples: The inputs of what runs.

    Attributes:
        found: Names of parameters that multiply samples.
        names: Names of parameters by identity.
    """

    def __init__(self, model: nn.Module, samples: Any) -> None:
        super().__init__()
        self._parameters = dict(model.named_parameters())  # kept, or others could take an identity
        self.names = {id(p): name for name, p in self._parameters.items()}
        self._samples = leaves(samples)
        self._marks = Marks()
        for t in self._samples:
            if id(t) not in self.names:
                self._marks.sample(t, None)
        for t in _own_tensors(model):
            if id(t) not in self.names and not self._marks.found(t):
                self._marks.constant(t)
        self.found: set[str] = set()
        self._left = False  # whether values of samples have left torch, as numbers or for numpy
        self._inside: list[Callable[..., Any]] = []  # functions written in Python that run now

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        check_format(func)
        if is_python(func) and func not in self._inside:  # one may ask again by its public name
            self._inside.append(func)
            try:
                with self:
                    result = without_override_check(func)(*args, **kwargs)
            finally:
                self._inside.pop()
        else:
            result = func(*args, **kwargs)
        tensors = tensors_of(args, kwargs)
        mixed = any(map(self.is_sample, tensors))
        for t in weights_of(func, args, kwargs) if mixed else ():
            names = {self.names[i] for i in self.sources(t)}
            self.found |= {name for name in names if self._parameters[name].dim() > 1}
        self._left = self._left or (mixed and getattr(func, "__name__", "") in LEAVE)
        sources = frozenset[int]().union(*map(self.sources, tensors))
        self._note(func, args, result, tensors, mixed, sources)
        return result

    def _note(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        result: Any,
        tensors: Sequence[Tensor],
        mixed: bool,
        sources: frozenset[int],
    ) -> None:
        """Note what a call has put out."""
        if not mixed and self._left and (name_of(func) in MADE_OF_NUMBERS or any(map(_is_number, args))):
            mixed = True  # these may be a sample's
        for y in outputs_of(func, args, result):
            if mixed:
                self._marks.sample(y, None)
                if any(y is t for t in tensors):
                    self._marks.written(y)
            elif id(y) in self.names or self._marks.is_sample(y):
                pass
            elif sources:
                self._marks.derived(y, sources)
            else:
                self._marks.constant(y)

    def sources(self, x: Tensor) -> frozenset[int]:
        """The parameters that ``x`` is, or is computed from without samples."""
        return frozenset((id(x),)) if id(x) in self.names else self._marks.parameters(x)

    def is_sample(self, x: Tensor) -> bool:
        """Whether ``x`` depends on samples, or nobody knows where it is from."""
        if id(x) in self.names:
            return False
        if self._marks.is_sample(x):
            return True
        return not self._marks.parameters(x) and not self._marks.is_constant(x)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | complex)


def _own_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Buffers, and tensors that are attributes or in containers that are."""
    yield from model.buffers()
    for module in model.modules():
        values = [v for key, v in vars(module).items() if key[0] != "_" and isinstance(v, HOLDERS)]
        if values:
            yield from leaves(values)
