"""Proxies by name."""

from __future__ import annotations

from pynas._registry import Registry
from pynas.proxies._base import Proxy

REGISTRY: Registry[Proxy] = Registry("proxy")


def register(proxy: type[Proxy]) -> type[Proxy]:
    """Class decorator that registers a proxy under its name."""
    REGISTRY.register(proxy.name, proxy())
    return proxy


def get(name: str) -> Proxy:
    """The proxy called ``name``; UserError with the choices if there is none."""
    return REGISTRY.get(name)


def names() -> tuple[str, ...]:
    """All proxies, sorted."""
    return REGISTRY.names()
