from __future__ import annotations

import math

import pytest

from pynas._errors import UserError
from pynas._registry import Registry
from pynas.architecture import Architecture
from pynas.trial import Evaluation, Status


def test_registry_refuses_duplicates_and_explains_unknown_names() -> None:
    registry: Registry[int] = Registry("proxy")
    registry.register("zico", 1)
    registry.register("snip", 2)
    assert registry.get("zico") == 1
    assert registry.names() == ("snip", "zico")
    with pytest.raises(ValueError, match="proxy 'zico' is registered already"):
        registry.register("zico", 3)
    with pytest.raises(UserError, match=r"unknown proxy 'zicko'; known: snip, zico\. Did you mean 'zico'\?"):
        registry.get("zicko")


def test_architecture_is_a_hashable_value_with_a_json_form() -> None:
    arch = Architecture("toy", [1, 2, 0])  # type: ignore[arg-type]
    assert arch == Architecture("toy", (1, 2, 0))
    assert len({arch, Architecture("toy", (1, 2, 0))}) == 1
    assert Architecture.from_json(arch.to_json()) == arch
    for text in ("", "[]", "{}", '{"space": "toy"}', '{"space": "toy", "decisions": 3}'):
        with pytest.raises(ValueError, match="text: expected an architecture"):
            Architecture.from_json(text)


def test_evaluation_survives_json_with_non_finite_numbers() -> None:
    evaluation = Evaluation(Status.FAILED, {"zico": math.nan}, {"params": 3.0}, "diverged", 0.5)
    restored = Evaluation.from_dict(evaluation.to_dict())
    assert restored.status is Status.FAILED
    assert math.isnan(restored.scores["zico"])
    assert restored.metrics == {"params": 3.0}
    assert (restored.message, restored.seconds) == ("diverged", 0.5)
