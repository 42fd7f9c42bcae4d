"""Files that are written: whole or not at all, in the place of whatever is there, checked before any work."""

from __future__ import annotations

import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pynas import cli
from pynas._errors import UserError
from pynas._io.atomic import append_line, check_output, check_output_folder, replacing

OLD, NEW = b"old content\n", b"new content, longer than the old one\n"


def write(path: Path, content: bytes = NEW) -> None:
    with replacing(path) as file:
        file.write(content)


def fail(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as file:
        file.write(NEW)
        file.flush()
        raise error


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == NEW
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["new", "usual"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o2664])
def test_mode_and_owner_stay(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    path.chmod(mode)
    before = path.stat()
    write(path)
    after = path.stat()
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(after.st_mode) == mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino  # it was replaced, not written


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_a_link_stays_a_link(tmp_path: Path, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    link.symlink_to("second")
    (tmp_path / "second").symlink_to(Path("elsewhere", "file"))
    if there:
        target.write_bytes(OLD)
    check_output(link, "--report")
    write(link)
    assert target.read_bytes() == NEW
    assert not target.is_symlink()
    assert link.is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    for target in (path, tmp_path / "other"):
        for error in (RuntimeError, KeyboardInterrupt, SystemExit):
            with pytest.raises(error):
                fail(target, error)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        for target in (path, tmp_path / "other"):
            with pytest.raises(UserError, match=rf"{target.name}: cannot write: File too large"):
                write(target, b"x" * 100_000)
        append_line(path, "x" * 40)
        with pytest.raises(UserError, match="file: cannot write: File too large"):
            append_line(path, "y" * 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == OLD + b"x" * 40 + b"\n"
    assert os.listdir(tmp_path) == ["file"]


def test_what_cannot_be_replaced_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output(pipe, "--report")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join()
    assert found == [NEW]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    check_output(Path("/dev/null"), "--report")
    write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    check_output(Path("/dev/full"), "--report")
    with pytest.raises(UserError, match="/dev/full: cannot write: No space left on device"):
        write(Path("/dev/full"))
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.slow
def test_standard_output_keeps_what_was_printed(tmp_path: Path) -> None:
    """Also where it is a file, which opening it anew would write from its beginning."""
    code = (
        "from pathlib import Path; from pynas._io.atomic import check_output, replacing\n"
        "for name in '/dev/stdout', '/dev/fd/1', '/proc/self/fd/1', '/dev/../dev/stdout':\n"
        "    print(f'before {name}'); check_output(Path(name), '--report')\n"
        "    with replacing(Path(name)) as file: file.write(b'page\\n')\n"
        "print('after')"
    )
    with (tmp_path / "file").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    names = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/../dev/stdout")
    expected = "".join(f"before {name}\npage\n" for name in names) + "after\n"
    assert (tmp_path / "file").read_text() == expected
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert piped.stdout == expected


def test_long_names_and_other_bytes(tmp_path: Path) -> None:
    for name in ("n" * 255, "ü" * 127, os.fsdecode(b"bytes \xff.html"), "a\nb", "-", " "):
        check_output(tmp_path / name, "--report")
        write(tmp_path / name)
        assert (tmp_path / name).read_bytes() == NEW
    assert len(os.listdir(tmp_path)) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of others, which this process won't use
        child = os.fork()
    if not child:
        try:
            signal.signal(number, signal.SIG_DFL)
            with cli._tidy_when_ended(), replacing(path) as file:
                file.write(b"x" * 100_000)
                os.write(writer, b"ready")
                time.sleep(60)
        finally:
            os._exit(1)
    os.read(reader, 5)
    assert len(os.listdir(tmp_path)) == 2
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == number
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]
    os.close(reader)
    os.close(writer)


# ---- lines at the end of a file ----------------------------------------------------------------------


def test_lines_are_added_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "lines"
    with pytest.raises(UserError, match="lines: cannot write: No such file"):
        append_line(path, "a")
    append_line(path, "a", parents=True)
    append_line(path, "ü")
    assert path.read_text() == "a\nü\n"
    path.write_text("a\nhalf a li")
    append_line(path, "b")
    assert path.read_text() == "a\nhalf a li\nb\n"
    append_line(Path("/dev/null"), "c")
    with pytest.raises(UserError, match="No space left on device"):
        append_line(Path("/dev/full"), "c")


# ---- checks ------------------------------------------------------------------------------------------


@pytest.fixture
def forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that may not be written, also by root: its answers are those that a user gets."""
    folder = tmp_path / "forbidden"
    folder.mkdir()
    (folder / "file").write_bytes(OLD)
    (folder / "file").chmod(0o444)
    folder.chmod(0o555)
    access = os.access

    def answer(path: Path, mode: int) -> bool:
        below = Path(os.path.realpath(path)).is_relative_to(folder)
        return not (below and mode & os.W_OK) and access(path, mode)

    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", answer)
    yield folder
    folder.chmod(0o755)


def test_outputs_that_cannot_be(tmp_path: Path, forbidden: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "page.html")
    (tmp_path / "inside").symlink_to(forbidden / "page.html")
    (tmp_path / "protected").write_bytes(OLD)
    (tmp_path / "protected").chmod(0o444)
    cases: dict[str, str] = {
        "missing/page.html": f"--report: no such folder: {tmp_path / 'missing'}",
        "dangling": f"--report: no such folder: {tmp_path / 'missing'}",
        ".": "--report: .* is a folder; give the name of a file in it",
        "forbidden": "--report: .* is a folder",
        "forbidden/page.html": f"--report: the folder {forbidden} may not be written",
        "inside": f"--report: the folder {forbidden} may not be written",
        "forbidden/file": "--report: .*file is there and may not be written",
        "file/page.html": "--report: .*Not a directory|no such folder",
        "circle": "--report: .*cannot be a file: (Too many levels|Symlink loop)",
        "n" * 256: "--report: .*cannot be a file: File name too long",
        "a\0b": r"--report: .*a\\x00b' cannot be a file: embedded null byte",
    }
    if os.geteuid():
        cases["protected"] = "--report: .*protected is there and may not be written"
    for name, expected in cases.items():
        with pytest.raises(UserError, match=expected):
            check_output(tmp_path / name, "--report")
    with pytest.raises(UserError, match=r"--save: expected a file name that ends in \.npz, got '.*x\.html'"):
        check_output(tmp_path / "x.html", "--save", suffix=".npz")
    with pytest.raises(UserError, match="/dev/fd/99' cannot be a file: Bad file descriptor"):
        check_output(Path("/dev/fd/99"), "--report")
    assert (tmp_path / "file").read_bytes() == OLD


def test_outputs_that_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.stat(tmp_path).st_mtime_ns
    for name in ("page.html", "./page.html", "/dev/null", "/dev/stdout", "/dev/stderr", "../x"):
        check_output(Path(name), "--report")
    check_output(Path("a/b/c.json"), "OUTPUT", parents=True)
    check_output(Path("x.npz"), "OUTPUT", suffix=".npz")
    assert os.listdir(tmp_path) == []
    assert os.stat(tmp_path).st_mtime_ns == before


def test_folders_to_write_into(tmp_path: Path, forbidden: Path) -> None:
    (tmp_path / "file").touch()
    check_output_folder(tmp_path, "--checkpoint")
    check_output_folder(tmp_path / "new", "--checkpoint")
    check_output_folder(tmp_path / "new" / "er", "--folder", parents=True)
    for name, expected in {
        "file": "is no folder; give one",
        "new/er": "no such folder",
        "forbidden": "may not be written",
        "forbidden/new": "may not be written",
        "file/new": "Not a directory|no such folder",
    }.items():
        with pytest.raises(UserError, match=f"--checkpoint: .*({expected})"):
            check_output_folder(tmp_path / name, "--checkpoint")
    assert sorted(os.listdir(tmp_path)) == ["file", "forbidden"]


def test_every_writer_uses_it() -> None:
    """No module opens a file to write it but the one that does so safely."""
    package = Path(__file__).resolve().parent.parent / "pynas"
    allowed = {
        "_io/atomic.py",
        "tables/_compact.py",  # into a file that the former opened
        "cli/__init__.py",  # nowhere, in the place of a closed stream
        "export/files.py",  # into memory, which the former writes
        "nn/supernet.py",  # says it in a text
        "run/result.py",  # its to_csv goes through the first
        "cli/search.py",  # calls that
    }
    writes = re.compile(
        r"""write_(text|bytes|html|image)\(|np\.save|save_file\(|torch\.save\(|to_csv\(|json\.dump\("""
        r"""|open\((.*, *)?(mode=)?["'][wax]b?\+?["']"""
    )
    found = {
        str(path.relative_to(package)): match[0]
        for path in package.rglob("*.py")
        if "testing" not in path.parts and (match := writes.search(path.read_text()))
    }
    assert found.keys() == allowed, found
