"""Sizes of darts_genotypes.py: half an hour for each half, on a thread beside other work; or seconds."""

from __future__ import annotations

from typing import Any

# Rates and epochs of the search on CIFAR-10 were chosen on seeds 0 to 2, so others are measured.
# What searching and training alone depend on; numbers of them stand outside, so that more can be added.
FULL: dict[str, dict[str, Any]] = {
    "cifar10": {
        "seeds": [3, 4, 5, 6], "warm_up": {"DARTS": 0.0}, "random": 16, "repeats": 2,
        "data": {"images": 4000, "test": 2000, "size": 12},
        "network": {"channels": 8, "num_cells": 5},
        "search": {"epochs": 10, "batch_size": 64, "rate": 0.1, "alpha_rate": 1e-2},
        "alone": {"epochs": 6, "batch_size": 64, "rate": 0.1},
    },
    "text": {
        "seeds": [0, 1, 2], "warm_up": {"DARTS": 0.0, "DARTS, warm-up": 0.4}, "random": 12, "repeats": 2,
        "data": {"words": 200_000, "test": 50_000, "vocabulary": 2000, "alpha_share": 0.25},
        "network": {"nodes": 8, "features": 64, "dropout": 0.1},
        "search": {"epochs": 2, "batch_size": 64, "steps": 10, "rate": 5e-3, "alpha_rate": 3e-3},
        "alone": {"epochs": 3, "batch_size": 64, "steps": 10, "rate": 5e-3},
    },
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "cifar10": FULL["cifar10"] | {
        "seeds": [0], "random": 2, "repeats": 1,
        "data": {"images": 64, "test": 40, "size": 16},
        "network": {"channels": 4, "num_cells": 3},
        "search": FULL["cifar10"]["search"] | {"epochs": 1, "batch_size": 16},
        "alone": {"epochs": 1, "batch_size": 32, "rate": 0.1},
    },
    "text": FULL["text"] | {
        "seeds": [0], "random": 2,
        "data": {"words": 400, "test": 100, "vocabulary": 20, "alpha_share": 0.25},
        "network": {"nodes": 2, "features": 6, "dropout": 0.1},
        "search": FULL["text"]["search"] | {"epochs": 1, "batch_size": 4},
        "alone": FULL["text"]["alone"] | {"epochs": 1, "batch_size": 4},
    },
}  # fmt: skip
