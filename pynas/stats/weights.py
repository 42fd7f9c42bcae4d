"""Which parameters are weights: what multiplies its input, whatever module or computation holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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
# Layers whose parameters of two or more dimensions multiply nothing, in them or elsewhere.
OTHERS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
# By these, values leave torch; by those, numbers become tensors.
LEAVE = {
    "numpy", "tolist", "item", "__array__", "__dlpack__", "__float__", "__int__", "__index__", "__complex__",
    "untyped_storage", "storage", "typed_storage", "data_ptr",
}  # fmt: skip
MADE_OF_NUMBERS = {
    "tensor", "as_tensor", "asarray", "from_numpy", "frombuffer", "from_dlpack", "scalar_tensor", "full",
    "full_like", "new_tensor", "new_full", "fill_", "setitem", "sparse_coo_tensor", "complex",
}  # fmt: skip
# These of them ask where values are, and take none.
PLACES = {"data_ptr", "untyped_storage", "storage", "typed_storage"}
HOLDERS = (Tensor, list, tuple, dict)


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """What a forward pass shows about a model's parameters.

    Attributes:
        names: Weights: what multiplies its input, by name in the model's order.
        unseen: Parameters of two dimensions or more that the output depends on by a way that nobody can
            follow (scripted code, another thread, an autograd function of the model's own), of which none
            can tell whether they are weights.
    """

    names: tuple[str, ...]
    unseen: frozenset[str] = frozenset()


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


def found_weights(model: nn.Module, inputs: Any) -> FoundWeights:
    """The same with every other parameter that multiplies something in a forward pass of two samples."""
    known = matrix_names(model)
    if not _others(model, known):
        return FoundWeights(tuple(known))
    few = cut(inputs, 0, min(2, leaves(inputs)[0].shape[0]))
    try:
        watch = _watched(model, few, differentiable=True)
    except (RuntimeError, TypeError):  # it takes what needs no gradient in the model as it is
        watch = _watched(model, few, differentiable=False)
    names = [name for name, _ in model.named_parameters() if name in watch.found or name in known]
    return FoundWeights(tuple(names), frozenset(watch.hidden - set(names)))


def weight_names(model: nn.Module, inputs: Any) -> list[str]:
    """The weights that :func:`found_weights` finds."""
    return list(found_weights(model, inputs).names)


def _watched(model: nn.Module, few: Any, *, differentiable: bool) -> ProductWatch:
    """A forward pass under a watch; if so asked, with gradients of all parameters, so that none hides."""
    few = writable(few)
    watch = ProductWatch(model, few)
    with preserved(model), torch.enable_grad():  # with gradients, for a forward may take some of its own
        if differentiable:
            for p in model.parameters():
                p.requires_grad_(p.is_floating_point() or p.is_complex())
        with watch:
            outputs = call_model(model, few)
        watch.hide(leaves(outputs))
    return watch


def weight_tensors(model: nn.Module, inputs: Any) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The same as tensors, and what is unseen; one that is computed (weight norm) once, by its attribute."""
    check_readable(model)
    with held(model) if has_computed_weights(model) else nullcontext():
        found = found_weights(model, inputs)
        return {name: model.get_parameter(name).detach() for name in found.names}, found.unseen


def _others(model: nn.Module, known: list[str]) -> bool:
    """Whether there are parameters of two dimensions or more of which the kind of module says nothing.

    A table of embeddings may be a weight as well (tied to what makes logits).
    """
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
        hidden: Names of parameters of two dimensions or more that meet samples where nobody sees it.
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
        self.hidden: set[str] = set()
        self._met: dict[Any, list[Any]] = {}  # by a call's node for autograd, those of its samples
        self._left = False  # whether values of samples have left torch, as numbers or for numpy
        self._inside: list[Callable[..., Any]] = []  # functions written in Python that run now

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        check_format(func)
        tensors = tensors_of(args, kwargs)
        sources = frozenset[int]().union(*map(self.sources, tensors))
        before = [t.grad_fn for t in tensors if self.is_sample(t)] if sources else []
        if is_python(func) and func not in self._inside:  # one may ask again by its public name
            self._inside.append(func)
            try:
                with self:
                    result = without_override_check(func)(*args, **kwargs)
            finally:
                self._inside.pop()
        else:
            result = func(*args, **kwargs)
        mixed = any(map(self.is_sample, tensors))
        for t in weights_of(func, args, kwargs) if mixed else ():
            names = {self.names[i] for i in self.sources(t)}
            self.found |= {name for name in names if self._parameters[name].dim() > 1}
        name = getattr(func, "__name__", "")
        self._left = self._left or (mixed and name in LEAVE)
        if sources and name in LEAVE and name not in PLACES:
            self._hide(sources)
        if before:
            nodes = [node for node in before if node is not None]
            for y in outputs_of(func, args, result):
                if y.grad_fn is not None and y.grad_fn not in nodes:
                    self._met.setdefault(y.grad_fn, nodes)
        self._note(func, args, result, tensors, mixed, sources)
        return result

    def hide(self, outputs: Sequence[Tensor]) -> None:
        """After the pass: note what these depend on by other ways than the calls that were seen."""
        waiting = [y.grad_fn for y in outputs if y.grad_fn is not None and self.is_sample(y)]
        seen = set(waiting)
        while waiting:
            node = waiting.pop()
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                self._hide((id(leaf),))
            after = self._met.get(node)
            for n in [n for n, _ in node.next_functions] if after is None else after:
                if n is not None and n not in seen:
                    seen.add(n)
                    waiting.append(n)
        self._met.clear()

    def _hide(self, sources: Iterable[int]) -> None:
        names = {self.names[i] for i in sources if i in self.names}
        self.hidden |= {name for name in names if self._parameters[name].dim() > 1}

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
