"""Which parameters are weights: what multiplies its input, whatever module or computation holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pynas._errors import UserError
from pynas.stats._functions import is_python
from pynas.stats._marks import Marks
from pynas.stats._mixing import outputs_of, tensors_of, weights_of
from pynas.stats.data import call_model, cut, leaves, writable
from pynas.stats.eager import check_readable
from pynas.stats.overrides import without_override_check
from pynas.stats.state import preserved

MATRIX_LAYERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Bilinear
)  # fmt: skip
# Layers whose parameters of two or more dimensions multiply nothing.
OTHERS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.modules.batchnorm._BatchNorm)


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
    with preserved(model), torch.no_grad(), ProductWatch(dict(model.named_parameters()), few) as watch:
        call_model(model, few)
    return [name for name, _ in model.named_parameters() if name in watch.found or name in known]


def weight_tensors(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The same as tensors; a weight that its layer computes (weight norm) once, by its attribute."""
    check_readable(model)
    found: dict[str, Tensor] = {}
    computed: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, MATRIX_LAYERS) and module._parameters.get("weight") is None:
            prefix = f"{name}." if name else ""
            with torch.no_grad():
                found[f"{prefix}weight"] = module.weight.detach()
            computed |= {f"{prefix}{key}" for key, _ in module.named_parameters()}
    found |= {n: model.get_parameter(n).detach() for n in weight_names(model, inputs) if n not in computed}
    return found


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

    Args:
        parameters: By name.
        samples: The inputs of what runs.

    Attributes:
        found: Names of parameters that multiply samples.
        names: Names of parameters by identity.
    """

    def __init__(self, parameters: Mapping[str, Tensor], samples: Any) -> None:
        super().__init__()
        self.names = {id(p): name for name, p in parameters.items()}
        self._parameters = parameters  # kept, or another tensor could take an identity
        self._samples = leaves(samples)
        self._marks = Marks()
        for t in self._samples:
            if id(t) not in self.names:
                self._marks.sample(t, None)
        self.found: set[str] = set()
        self._inside: list[Callable[..., Any]] = []  # functions written in Python that run now

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
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
        mixed = self._marks.any_sample(tensors)
        for t in weights_of(func, args, kwargs) if mixed else ():
            names = {self.names[i] for i in self.sources(t)}
            self.found |= {name for name in names if self._parameters[name].dim() > 1}
        sources = frozenset[int]().union(*map(self.sources, tensors))
        for y in outputs_of(func, args, result):
            if mixed:
                self._marks.sample(y, None)
            elif sources and id(y) not in self.names:
                self._marks.derived(y, sources)
        return result

    def sources(self, x: Tensor) -> frozenset[int]:
        """The parameters that ``x`` is, or is computed from without samples."""
        return frozenset((id(x),)) if id(x) in self.names else self._marks.parameters(x)

    def is_sample(self, x: Tensor) -> bool:
        """Whether ``x`` depends on samples."""
        return self._marks.is_sample(x)
