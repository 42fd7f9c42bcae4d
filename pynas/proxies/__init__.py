"""Zero-shot proxies: each is one file, a pure function of gradient statistics."""

from __future__ import annotations

from pynas.proxies._base import BatchProbe, Probe, ProbeCall, Proxy
from pynas.proxies._registry import REGISTRY, get, names, register
from pynas.proxies.epe_nas import EpeNas
from pynas.proxies.fisher import Fisher
from pynas.proxies.flops import Flops
from pynas.proxies.grad_norm import GradNorm
from pynas.proxies.grad_norm_zennas import GradNormZenNAS
from pynas.proxies.grad_sign import GradSign
from pynas.proxies.grasp import Grasp
from pynas.proxies.jacob_cov import JacobCov
from pynas.proxies.l2_norm import L2Norm
from pynas.proxies.layers import Layers
from pynas.proxies.linear_regions import LinearRegions
from pynas.proxies.logdet import Logdet
from pynas.proxies.naswot import Naswot
from pynas.proxies.naswot_published import NaswotPublished
from pynas.proxies.ntk_condition import NTKCondition
from pynas.proxies.ntk_condition_tenas import NTKConditionTENAS
from pynas.proxies.params import Params
from pynas.proxies.plain import Plain
from pynas.proxies.snip import Snip
from pynas.proxies.synflow import Synflow, SynflowBN
from pynas.proxies.zen import Zen
from pynas.proxies.zen_zennas import ZenZenNAS
from pynas.proxies.zico import Zico
from pynas.proxies.zico_per_sample import ZicoPerSample

__all__ = [
    "REGISTRY",
    "BatchProbe",
    "EpeNas",
    "Fisher",
    "Flops",
    "GradNorm",
    "GradNormZenNAS",
    "GradSign",
    "Grasp",
    "JacobCov",
    "L2Norm",
    "Layers",
    "LinearRegions",
    "Logdet",
    "NTKCondition",
    "NTKConditionTENAS",
    "Naswot",
    "NaswotPublished",
    "Params",
    "Plain",
    "Probe",
    "ProbeCall",
    "Proxy",
    "Snip",
    "Synflow",
    "SynflowBN",
    "Zen",
    "ZenZenNAS",
    "Zico",
    "ZicoPerSample",
    "get",
    "names",
    "register",
]
