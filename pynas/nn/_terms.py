"""Sums of candidates that are not computed yet, for code that has a loop over candidates of its own.

While such code runs, each candidate that the operator knows is replaced by a :class:`Deferred`. Called, it
returns a :class:`Term`, ``sum_k w_k op_k(x) + rest``, and products with scalars and sums of terms are terms
again. Whatever else is done with a term computes it, in one call of the operator. So the code may compute its
weights, slice its input and treat the sum as it likes: what comes out is what its loop would have computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pynas.nn._recognise import call_alone
from pynas.nn.mixed_op import MixedOp

Weight = Tensor | float


class Deferred:
    """Stands for candidate ``k`` of a mixture; attributes are those of the candidate."""

    def __init__(self, mixture: MixedOp, k: int) -> None:
        self._mixture, self._k = mixture, k

    @property
    def _member(self) -> nn.Module:
        return self._mixture.modules_in_order[self._k]

    def __call__(self, *args: Any, **named: Any) -> Any:
        x, *others = args or (None,)
        if (
            not isinstance(x, Tensor)
            or x.dim() != 4
            or any(v is not None for v in (*others, *named.values()))
        ):
            return self._member(*args, **named)
        return Term(self._mixture, x, {self._k: 1.0})

    forward = __call__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._member, name)


class _Pending:
    """What terms and stacks of them have in common: anything not defined here computes the value."""

    _value: Tensor | None = None

    def value(self) -> Tensor:
        """What it stands for; computed once."""
        if self._value is None:
            self._value = self._compute()
        return self._value

    def _compute(self) -> Tensor:
        raise NotImplementedError

    def _scaled(self, by: Any) -> _Pending | None:
        """The product, if that need not be computed yet."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        return self.value().shape

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def __mul__(self, other: Any) -> Any:
        found = self._scaled(other) if self._value is None else None
        return self.value() * computed(other) if found is None else found

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        plain = isinstance(other, (int, float)) and other
        return self * (1.0 / other) if plain else self.value() / computed(other)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value(), name)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if not kwargs and len(args) == 2 and name in ("mul", "multiply"):
            return args[0] * args[1] if isinstance(args[0], _Pending) else args[1] * args[0]
        if not kwargs and len(args) == 2 and name == "add":
            terms = [a for a in args if isinstance(a, Term)]
            if terms:
                return terms[0] + args[1 if args[0] is terms[0] else 0]
        if name == "stack" and (args[1:] == (0,) or (len(args) == 1 and kwargs in (None, {}, {"dim": 0}))):
            return _stacked(args[0])
        if name == "sum" and isinstance(args[0], Stack):
            return args[0].sum(*args[1:], **(kwargs or {}))
        return func(*computed(args), **computed(dict(kwargs or {})))


def _of_value(name: str) -> Any:
    def method(self: _Pending, *args: Any) -> Any:
        return getattr(self.value(), name)(*computed(args))

    return method


# Python looks these up in classes only.
for _name in ("sub", "rsub", "rtruediv", "neg", "pow", "matmul", "getitem", "len", "iter", "lt", "gt"):
    setattr(_Pending, f"__{_name}__", _of_value(f"__{_name}__"))


class Term(_Pending):
    """``sum_k weights[k] op_k(x) + rest`` over candidates of one mixture."""

    def __init__(
        self, mixture: MixedOp, x: Tensor, weights: Mapping[int, Weight], rest: Weight | None = None
    ) -> None:
        self._mixture, self._x, self._weights, self._rest = mixture, x, weights, rest

    def _compute(self) -> Tensor:
        members = self._mixture.modules_in_order
        (k, weight), *others = self._weights.items()
        if not others and not isinstance(weight, Tensor) and weight == 1.0:
            y: Tensor = call_alone(members[k], self._x)
        else:
            y = self._mixture(self._x, [self._weights.get(k, 0.0) for k in range(len(members))])
        return y if self._rest is None else y + self._rest

    @property
    def shape(self) -> torch.Size:
        if self._value is not None or isinstance(self._rest, Tensor):
            return self.value().shape
        n, c, *sides = self._x.shape
        return torch.Size((n, c, *(-(-side // self._mixture._stride) for side in sides)))

    def _scaled(self, by: Any) -> Term | None:
        if isinstance(by, Tensor):
            # A tensor with dimensions would take part in promoting dtypes.
            if by.numel() != 1 or by.dim() > 4 or (by.dim() and by.dtype != self._x.dtype):
                return None
            by = by.reshape(())
        elif isinstance(by, bool) or not isinstance(by, (int, float)):
            return None
        weights = {k: by if _is_one(w) else w * by for k, w in self._weights.items()}
        return Term(self._mixture, self._x, weights, None if self._rest is None else self._rest * by)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Term) and self._value is None and other._value is None:
            same = self._mixture is other._mixture and self._x is other._x
            if same and not self._weights.keys() & other._weights.keys():
                rests = [r for r in (self._rest, other._rest) if r is not None]
                rest = None if not rests else rests[0] if len(rests) == 1 else rests[0] + rests[1]
                return Term(self._mixture, self._x, {**self._weights, **other._weights}, rest)
        other = computed(other)
        if self._value is not None or not isinstance(other, (Tensor, int, float)):
            return self.value() + other
        if not isinstance(other, Tensor) and other == 0:  # what sum() starts with
            return self
        rest = other if self._rest is None else self._rest + other
        return Term(self._mixture, self._x, self._weights, rest)

    __radd__ = __add__


class Stack(_Pending):
    """Terms, and images among them, side by side in a new first dimension."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def _compute(self) -> Tensor:
        return torch.stack([computed(item) for item in self._items])

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self._items), *self._items[0].shape))

    def _scaled(self, by: Any) -> Stack | None:
        if not isinstance(by, Tensor) or tuple(by.shape) != (len(self._items), 1, 1, 1, 1):
            return None
        if any(by.dtype != (item._x if isinstance(item, Term) else item).dtype for item in self._items):
            return None
        return Stack([item * weight for item, weight in zip(self._items, by.flatten().unbind(), strict=True)])

    def sum(self, dim: Any = None, **named: Any) -> Any:
        """Over the first dimension a sum of terms; otherwise that of the value."""
        if named or self._value is not None or dim not in (0, (0,), [0], -5):
            return self.value().sum(dim, **named)
        return sum(self._items)


def computed(value: Any) -> Any:
    """``value`` with every term in it computed, within tuples, lists and dictionaries."""
    if isinstance(value, _Pending):
        return value.value()
    if type(value) in (tuple, list):
        return type(value)(computed(item) for item in value)
    if type(value) is dict:
        return {key: computed(item) for key, item in value.items()}
    return value


def _stacked(items: Any) -> Any:
    items = list(items)
    if all(isinstance(item, (Term, Tensor)) and item.shape == items[0].shape for item in items):
        return Stack(items)
    return torch.stack(computed(items))


def _is_one(weight: Weight) -> bool:
    return not isinstance(weight, Tensor) and weight == 1.0
