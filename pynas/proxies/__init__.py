"""Zero-shot proxies: each is one file, a pure function of gradient statistics."""

from __future__ import annotations

from pynas.proxies._base import BatchProbe, Probe, ProbeCall, Proxy
from pynas.proxies._registry import REGISTRY, get, names, register
from pynas.proxies.flops import Flops
from pynas.proxies.grad_norm import GradNorm
from pynas.proxies.grad_sign import GradSign
from pynas.proxies.params import Params
from pynas.proxies.plain import Plain
from pynas.proxies.snip import Snip
from pynas.proxies.zico import Zico
from pynas.proxies.zico_per_sample import ZicoPerSample

__all__ = [
    "REGISTRY",
    "BatchProbe",
    "Flops",
    "GradNorm",
    "GradSign",
    "Params",
    "Plain",
    "Probe",
    "ProbeCall",
    "Proxy",
    "Snip",
    "Zico",
    "ZicoPerSample",
    "get",
    "names",
    "register",
]
