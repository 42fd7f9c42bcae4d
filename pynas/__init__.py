"""Neural architecture search in PyTorch with a C++/CUDA core.

>>> space = pynas.spaces.get("nasbench201")
>>> model = space.build(space.sample(random.Random(0)))
>>> scores = pynas.score(model, inputs, targets, proxies=["zico"])
"""

from __future__ import annotations

__version__ = "0.1.0"
