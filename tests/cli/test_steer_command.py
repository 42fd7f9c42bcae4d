"""``pynas steer`` and ``pynas replay``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CELL = ("--space", "nasbench201:channels=2,num_cells=1", "--evaluator", "params,flops", "--batch", "8")


def test_a_page_is_served_until_ctrl_c_and_the_search_is_replayed(tmp_path: Path, run_pynas: Any) -> None:
    httpx = pytest.importorskip("httpx", reason="httpx, of the extra 'dev', is not installed")
    pytest.importorskip("uvicorn", reason="the extra 'steer' is not installed")
    store = tmp_path / "runs.db"
    command = [sys.executable, "-m", "pynas.cli", "steer", *CELL, "--images", "digits", "--budget", "12"]
    process = subprocess.Popen(
        [*command, "--no-browser", "--store", store, "--points", "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("pynas steer: http://127.0.0.1:"), (line, process.communicate())
    url = line.split()[-1]
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(url).status_code == 200
        base = url.partition("?")[0]
        for _ in range(200):
            state = browser.get(f"{base}api/state").json()
            if state["search"]["status"] == "finished":
                break
            time.sleep(0.05)
        assert state["search"]["trials"] == 12
        answer = browser.post(f"{base}api/actions", json={"kind": "forbid", "blocks": ["0:0"]})
        assert answer.status_code == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    code, out, _ = run_pynas("replay", store, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["trials"], told["actions"], told["same"], told["differing"]) == (12, 3, True, [])
    code, out, _ = run_pynas("replay", store)
    assert code == 0
    assert "12 trials and 3 actions: the same again" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--resume",), "--resume needs --store"),
        (("--resume", "--store", "x.db", "--seed", "3"), "--seed: --resume goes on with what the store says"),
        (("--resume", "--store", "x.db", *CELL), "--space: --resume goes on"),
        (("--space", "mbv2_zico", "--evaluator", "params"), "no fixed number of decisions"),
        (("--host", "0.0.0.0"), "needs --token-file"),
        (("--device", "quantum"), "--device: expected cpu or cuda"),
        (("--space", "epnas"), "no fixed number of decisions"),
        (("--token-file", "absent"), "absent"),
        (("--learning-rate", "0"), "--learning-rate: expected a positive number"),
        (("--evaluator", "magic"), "magic"),
        (("--space", "nats_size"), "there is no supernet of nats_size"),
        (("--strategy", "psychic", *CELL), "psychic"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], reason: str, run_pynas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_pynas("steer", "--no-browser", *arguments)
    assert (code, out) == (2, "")
    assert reason in err
    assert err.startswith("pynas: ")


def test_ctrl_c_does_not_wait_for_a_long_trial(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra 'steer' is not installed")
    arguments = [
        "pynas",
        "steer",
        *CELL,
        "--no-browser",
        "--store",
        str(tmp_path / "runs.db"),
        "--points",
        "50",
    ]
    program = (
        "import sys, time\n"
        "from pynas.evaluate import ProxyEvaluator\n"
        "def evaluate(*_):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(300)\n"
        "ProxyEvaluator.__call__ = evaluate\n"
        f"sys.argv = {arguments!r}\n"
        "from pynas.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = ""
    while "begun" not in told or "Ctrl-C" not in told:
        told += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_token_is_long_and_plain(run_pynas: Any, tmp_path: Path) -> None:
    for content in (b"short", b"with a blank in the middle of it", b"\xff" * 40, b""):
        file = tmp_path / "token"
        file.write_bytes(content)
        code, _, err = run_pynas("steer", "--no-browser", "--host", "0.0.0.0", "--token-file", file)
        assert code == 2
        assert "at least 16 letters" in err


def test_nothing_to_replay(run_pynas: Any, tmp_path: Path) -> None:
    code, _, err = run_pynas("replay", tmp_path / "absent.db")
    assert code == 2
    assert "no such file" in err
