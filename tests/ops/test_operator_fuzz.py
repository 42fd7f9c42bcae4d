"""No call of an operator, whatever it is given, ends the process, reads what is not its own or hangs."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, randn

from pynas.testing.operator_fuzz import fuzz
from pynas.testing.operator_fuzz._call import Judge
from pynas.testing.operator_fuzz._child import _fork
from pynas.testing.operator_fuzz._memory import GuardedMemory
from pynas.testing.operator_fuzz._samples import OperatorCall, samples, schemas

pytestmark = pytest.mark.slow

CALLS = int(os.environ.get("PYNAS_FUZZ_CALLS", "5000"))
CORE = torch.ops.pynas
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")


def test_calls_of_all_kinds() -> None:
    report = fuzz(CALLS, seed=0, memory=0 if SANITIZED else 2 << 30)
    assert report.calls == CALLS
    assert not report.faults, "\n".join(map(str, report.faults))


# ---- the fuzzer itself ---------------------------------------------------------------------------


def test_every_operator_has_samples() -> None:
    calls = samples()
    assert set(calls) == set(schemas())
    assert {op for op, found in calls.items() if len(found) < 3} == set()


def _dies(work: Callable[[], None]) -> str:
    def quietly() -> None:
        faulthandler.disable()  # pytest's, which would print where the signal came from
        work()

    return _fork(quietly, mmap.mmap(-1, 8), 0.5)


@pytest.mark.skipif(SANITIZED, reason="a sanitizer turns the signal into a report")
def test_one_element_beyond_guarded_memory_kills() -> None:
    memory = GuardedMemory()
    for shape, stride in (((3, 5), (5, 1)), ((1,), (1,)), ((2, 3), (1, 7))):
        plain = torch.arange(100.0).as_strided(shape, stride, 4)
        for at_end in (True, False):
            guarded = memory.place(plain, at_end)
            assert torch.equal(guarded, plain)
            assert guarded.stride() == plain.stride()
            last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
            outside = guarded.data_ptr() + 4 * (last + 1 if at_end else -1)
            inside = guarded.data_ptr() + 4 * (last if at_end else 0)
            assert _dies(lambda at=inside: ctypes.c_float.from_address(at).value) == ""
            assert _dies(lambda at=outside: ctypes.c_float.from_address(at).value) == "killed by SIGSEGV"


def test_deaths_and_hangs_are_told_apart() -> None:
    assert _dies(lambda: None) == ""
    assert _dies(lambda: os.kill(os.getpid(), signal.SIGABRT)) == "killed by SIGABRT"
    assert _dies(lambda: time.sleep(60)) == "took more than 0.5 seconds"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """What is said of a call of an operator replaced by a function."""

    def judge(function: Callable[..., Any], x: Tensor, valid: bool = False) -> str | None:
        class Stub:
            class default:  # noqa: N801
                _schema = CORE.activation_codes.default._schema

                def __new__(cls, **arguments: Any) -> Any:
                    return function(**arguments)

        monkeypatch.setattr(CORE, "activation_codes", Stub, raising=False)
        return Judge().fault(OperatorCall("activation_codes", {"x": x}), True, valid)

    return judge


def test_wrong_results_and_exceptions_are_faults(judged: Callable[..., str | None]) -> None:
    def refuse(x: Tensor) -> None:
        raise ValueError("x: expected something else")

    def fail(x: Tensor) -> None:
        raise KeyError("x")

    expanded = randn(3, 1).expand(3, 4)
    assert judged(lambda x: x.sum(1), expanded) is None
    misread = judged(lambda x: x.as_strided((3, 4), (4, 1)).clone(), randn(4, 6).t()[:3])
    assert "differs" in (misread or "")
    assert judged(lambda x: x.clone().zero_(), randn(3)) is None
    assert judged(lambda x: x.zero_(), randn(3)) == "wrote to its input x"
    assert judged(refuse, randn(3)) is None
    assert "a valid call raised ValueError" in (judged(refuse, randn(3), True) or "")
    assert judged(fail, randn(3)) == "KeyError: 'x'"
