"""Proxies by name."""

from __future__ import annotations

from typing import TypeVar

from pynas import _named
from pynas._errors import UserError
from pynas._registry import Registry
from pynas.proxies._base import Proxy


def _adopted(name: str, found: object) -> Proxy:
    """The proxy that an object is, or a class makes without arguments."""
    if isinstance(found, type) and issubclass(found, Proxy):
        found = found()
    if isinstance(found, Proxy):
        return found
    raise TypeError(
        f"expected a pynas.proxies.Proxy or a class of them for {name!r}, got {type(found).__name__}"
    )


REGISTRY: Registry[Proxy] = Registry("proxy", "pynas.proxies", _adopted)

_P = TypeVar("_P", bound="Proxy | type[Proxy]")


def register(proxy: _P) -> _P:
    """Register a proxy, or a class of them, under its name; also a class decorator.

    Raises:
        ValueError: The name is taken.
        TypeError: It is neither.
    """
    made = _adopted(getattr(proxy, "name", ""), proxy)
    REGISTRY.register(made.name, made)
    return proxy


def get(name: str) -> Proxy:
    """The proxy called ``name``, or that ``package.module:object`` is.

    Raises:
        UserError: There is none, with the choices; or the object is no proxy, or has the name of another.
    """
    if name in REGISTRY or not _named.is_path(name):
        return REGISTRY.get(name)
    found = _named.load(name, f"proxy {name}")
    try:
        proxy = _adopted(name, found)
    except KeyboardInterrupt:
        raise
    except Exception as error:
        raise UserError(f"proxy {name}: {error}") from error
    known = REGISTRY.loaded().get(proxy.name)
    if known is not None and type(known) is not type(proxy):
        raise UserError(f"proxy {name}: its name {proxy.name!r} is that of another proxy; give it its own")
    REGISTRY.replace(proxy.name, proxy)  # from now on its name is enough
    return proxy


def names() -> tuple[str, ...]:
    """All proxies, sorted."""
    return REGISTRY.names()
