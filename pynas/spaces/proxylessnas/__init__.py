"""ProxylessNAS: 21 inverted residual blocks for ImageNet, six choices each or none."""

from __future__ import annotations

from pynas.spaces.proxylessnas.space import ProxylessNAS

__all__ = ["ProxylessNAS"]
