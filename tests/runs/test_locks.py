"""One writer per run folder, one engine at a time on a study."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunelab.errors import ConfigError
from tunelab.runs.locks import STALE_SECONDS, FolderLock, exclusive_lock, lock_handle

HOLD = """
    import sys
    from pathlib import Path
    from tunelab.runs.locks import FolderLock

    FolderLock(Path(sys.argv[1])).acquire()
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            stream.close()


def test_a_live_holder_keeps_others_out_and_a_dead_one_does_not(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run.lock")
    with holder(lock.path) as child:
        with pytest.raises(ConfigError, match=f"another process is writing to .*process {child.pid} on "):
            lock.acquire()
        lock.release()
        assert lock.path.exists(), "only the holder may release"
    lock.acquire()
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    assert not lock.path.exists()


def test_a_dead_child_nobody_waited_for_holds_nothing(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run.lock")
    with holder(lock.path) as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, still in the process table
        lock.acquire()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times of processes are read from /proc")
def test_a_reused_process_id_is_another_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run.lock")
    with holder(lock.path):
        held = json.loads(lock.path.read_text())
        process, start, boot = held["who"].split(":")
        lock.path.write_text(json.dumps(held | {"who": f"{process}:{int(start) - 1}:{boot}"}))
        lock.acquire()


def test_the_same_process_may_take_the_lock_twice(tmp_path: Path) -> None:
    FolderLock(tmp_path / "run.lock").acquire()
    FolderLock(tmp_path / "run.lock").acquire()


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"pid": 1}'])
def test_a_torn_lock_file_is_no_lock(tmp_path: Path, torn: str) -> None:
    lock = FolderLock(tmp_path / "run.lock")
    lock.path.write_text(torn)
    lock.acquire()
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_another_machine_is_believed_while_its_run_writes(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run.lock")
    curves = tmp_path / "metrics.csv"
    curves.touch()
    lock.path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "2026-01-01", "who": "1:1:1"}))
    quiet = time.time() - STALE_SECONDS - 60
    os.utime(lock.path, (quiet, quiet))
    with pytest.raises(ConfigError, match="elsewhere"):
        lock.acquire()
    os.utime(curves, (quiet, quiet))
    lock.acquire()


def test_of_many_processes_that_find_a_dead_holder_one_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"pid": 2**22 - 1, "host": "", "since": "", "who": ""}))
    os.utime(path, (0, 0))
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    losers: list[subprocess.Popen[str]] = []
    deadline = time.monotonic() + 500
    while len(losers) < len(children) - 1 and time.monotonic() < deadline:
        losers = [child for child in children if child.poll() is not None]
        time.sleep(0.01)
    winner = next(child for child in children if child not in losers)
    winner.kill()
    told = [child.communicate(timeout=500) for child in children]
    assert sorted(out for out, _ in told) == ["", "", "", "held\n"]
    assert sum("another process is writing" in fault for _, fault in told) == len(losers)


def locked_elsewhere(path: Path) -> bool:
    """Whether another process fails to lock a file at once."""
    code = (
        "import os, sys; from tunelab.runs.locks import lock_handle;"
        "sys.exit(not lock_handle(os.open(sys.argv[1], os.O_RDWR), wait=False))"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 1


def test_an_exclusive_lock_keeps_other_processes_out_until_it_is_released(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "claim.lock"):
        assert locked_elsewhere(tmp_path / "claim.lock")

    assert not locked_elsewhere(tmp_path / "claim.lock")


def test_a_lock_outlasts_a_forked_child_that_ends(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    assert lock_handle(handle)
    if not (child := os.fork()):
        os.close(handle)
        os._exit(0)
    os.waitpid(child, 0)

    assert locked_elsewhere(tmp_path / "lock")
    os.close(handle)


def test_without_kernel_locks_a_link_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "claim.lock"
    with exclusive_lock(path):
        links = [file for file in tmp_path.iterdir() if file.is_symlink()]
        assert len(links) == 1

    assert [file for file in tmp_path.iterdir()] == [path]
