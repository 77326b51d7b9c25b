"""Trials forked from one process: as if each were a new one, whatever happens to it, to the server, to the engine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.instant_search import FORKED, engine, run
from support.paths import ROOT
from tunelab.config.quoting import path_word
from tunelab.search.executors.forking import ForkedJob, ForkingExecutor
from tunelab.search.trial_process import Job, LocalExecutor, find_process

MIRROR = """
import atexit, json, os, resource, signal, sys, __main__
from tunelab.runs.redact import guard_streams
guard_streams()  # as a training does first
words = dict(word.split("=", 1) for word in sys.argv[1:])
ignored = {"PYTEST_CURRENT_TEST"}
seen = {
    "words": sys.argv, "command": sys.orig_argv, "module": __main__.__spec__.name, "file": __main__.__file__,
    "shown": [w for w in open("/proc/self/cmdline", "rb").read().decode(errors="surrogateescape").split(chr(0)) if w],
    "folder": os.getcwd(), "variables": {k: v for k, v in os.environ.items() if k not in ignored},
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "signals": {int(n): str(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()},
    "masked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "files": {f: os.readlink(f"/proc/self/fd/{f}") for f in ("0", "1", "2")}, "open": len(os.listdir("/proc/self/fd")),
    "streams": [[s.encoding, s.errors, s.line_buffering, s.isatty()] for s in (sys.stdin, sys.stdout, sys.stderr)],
    "flags": list(sys.flags), "path": sys.path, "limits": [resource.getrlimit(n) for n in range(10)],
    "threads": len(os.listdir("/proc/self/task")), "niceness": os.nice(0), "umask": os.umask(0o22),
}
open(words["out"], "w").write(json.dumps(seen))
print("said", flush=True)
print("cried", file=sys.stderr)
atexit.register(print, "bye")
if words.get("act") == "fail":
    sys.exit(7)
if words.get("act") == "crash":
    raise RuntimeError("crashed")
if words.get("act") == "abort":
    os.abort()
if words.get("act") == "wait":
    import time
    time.sleep(60)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules trials can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "mirror.py").write_text(MIRROR)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT / "tests"), str(ROOT / "src")]))
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def forking(modules: Path, said: list[str]) -> Iterator[ForkingExecutor]:
    with closing(ready(ForkingExecutor(said.append, ["json"]))) as executor:
        yield executor


def ready(executor: ForkingExecutor, **environment: str) -> ForkingExecutor:
    until(lambda: executor.is_ready(environment))
    return executor


def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.01)


def end(job: Job) -> int:
    until(lambda: job.poll() is not None)
    status = job.poll()
    assert status is not None
    return status


def mirror(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "mirror", *words]


def forked(executor: ForkingExecutor, words: Sequence[str], folder: Path, **environment: str) -> ForkedJob:
    job = executor.start(mirror(*words), folder, environment)
    assert isinstance(job, ForkedJob)
    return job


def test_a_forked_trial_has_all_that_a_new_process_has(tmp_path: Path, forking: ForkingExecutor) -> None:
    seen = []
    for number, executor in enumerate((LocalExecutor(), forking, forking)):
        folder = tmp_path / f"a trial, ünusual {number}"
        words = ["lr=1e-3", "text='two words'", f"out={tmp_path / 'seen.json'}", "strange=\udce4"]
        assert end(executor.start(mirror(*words), folder, {"CUDA_VISIBLE_DEVICES": "3"})) == 0
        assert (folder / "trial.log").read_text() == "said\ncried\nbye\n"
        seen.append(json.loads((tmp_path / "seen.json").read_text()))
        assert seen[-1]["files"].pop("1") == seen[-1]["files"].pop("2") == str(folder / "trial.log")

    assert seen[0]["variables"]["CUDA_VISIBLE_DEVICES"] == "3" and seen[0]["leads"] == [True, True]
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(("act", "status"), [("fail", 7), ("crash", 1), ("abort", -signal.SIGABRT)])
def test_a_forked_trial_ends_with_the_status_of_a_new_process(
    tmp_path: Path, forking: ForkingExecutor, act: str, status: int
) -> None:
    words = [f"act={act}", f"out={tmp_path / 'seen.json'}"]
    assert end(LocalExecutor().start(mirror(*words), tmp_path / "new", {})) == status
    assert end(forked(forking, words, tmp_path / "forked")) == status
    if act == "crash":
        assert "RuntimeError: crashed" in (tmp_path / "forked" / "trial.log").read_text()


def test_a_forked_trial_can_be_stopped_killed_and_recognized(tmp_path: Path, forking: ForkingExecutor) -> None:
    for number, (way, status) in enumerate([("stop", -signal.SIGTERM), ("kill", -signal.SIGKILL)]):
        folder, out = tmp_path / f"trial {number}", tmp_path / f"{number}.json"
        job = forked(forking, ["act=wait", f"out={out}", path_word("hydra.run.dir", folder)], folder)
        until(out.exists)
        assert job.poll() is None
        assert find_process(folder) == job.reference
        adopted = LocalExecutor().adopt("", folder)
        assert adopted is not None and adopted.reference == job.reference and adopted.poll() is None
        getattr(job, way)()
        assert end(job) == status and find_process(folder) is None


def test_what_outlives_a_trial_ends_with_it(tmp_path: Path, modules: Path, forking: ForkingExecutor) -> None:
    source = "import os, sys, time\nif os.fork() == 0:\n    time.sleep(60)\nprint(os.getpgid(0))\nos._exit(1)"
    (modules / "ranks.py").write_text(source)
    job = forking.start([sys.executable, "-P", "-m", "ranks"], tmp_path / "0", {})
    assert isinstance(job, ForkedJob) and end(job) == 1
    until(lambda: not group_lives(job.pid))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_trials_outlive_their_server_and_the_next_start_as_processes(
    tmp_path: Path, forking: ForkingExecutor, said: list[str]
) -> None:
    job = forked(forking, ["act=wait", f"out={tmp_path / 'seen.json'}"], tmp_path / "0")
    until((tmp_path / "seen.json").exists)
    assert forking.server is not None
    os.kill(server_pid(forking), signal.SIGKILL)
    until(lambda: job.poll() is None and forking.server is not None and forking.server.fault)
    assert job.poll() is None and job.is_alive
    job.stop()
    assert end(job) == -signal.SIGKILL  # as nobody was there to see how it ended

    for number in (1, 2):
        again = forking.start(mirror(f"out={tmp_path / 'seen.json'}"), tmp_path / str(number), {})
        assert not isinstance(again, ForkedJob) and end(again) == 0
    assert len(said) == 1 and "the process that forks trials has ended" in said[0]


def server_pid(executor: ForkingExecutor) -> int:
    assert executor.server is not None
    return executor.server._process.pid


def test_a_server_that_is_stopped_short_of_an_answer_starts_no_trial_twice(
    tmp_path: Path, forking: ForkingExecutor, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr("tunelab.search.executors.forking.ANSWER_SECONDS", 0.2)
    os.kill(server_pid(forking), signal.SIGSTOP)
    out = tmp_path / "seen.json"
    assert end(forking.start(mirror(f"out={out}"), tmp_path / "0", {})) == 0
    assert (tmp_path / "0" / "trial.log").read_text().count("said") == 1 and "does not answer" in said[0]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "a thread"),
        ("raise ImportError('no such library')", "ImportError: no such library"),
        ("import os; os._exit(3)", "has ended"),
    ],
)
def test_where_forking_is_not_safe_trials_are_processes_and_that_is_said_once(
    tmp_path: Path, modules: Path, said: list[str], source: str, reason: str
) -> None:
    (modules / "odd.py").write_text(source)
    with closing(ready(ForkingExecutor(said.append, ["odd"]))) as executor:
        for number in (0, 1):
            job = executor.start(mirror(f"out={tmp_path / 'seen.json'}"), tmp_path / str(number), {})
            assert not isinstance(job, ForkedJob) and end(job) == 0

    assert len(said) == 1 and reason in said[0]


def test_what_imports_print_stands_in_the_log_of_each_trial(tmp_path: Path, modules: Path, said: list[str]) -> None:
    (modules / "chatty.py").write_text("import sys; print('hello'); print('beware', file=sys.stderr)")
    with closing(ready(ForkingExecutor(said.append, ["chatty"]))) as executor:
        for number in (0, 1):
            assert end(forked(executor, [f"out={tmp_path / 'seen.json'}"], tmp_path / str(number))) == 0
            log = (tmp_path / str(number) / "trial.log").read_text().split("\n")
            assert sorted(log[:2]) == ["beware", "hello"] and log[2:] == ["said", "cried", "bye", ""]


def test_a_slot_differs_in_its_devices_only_or_its_trials_are_processes(
    tmp_path: Path, modules: Path, said: list[str]
) -> None:
    slots = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": str(number)} for number in (0, 1)]
    with closing(ready(ForkingExecutor(said.append, ["json"]), **slots[0])) as executor:
        for slot in slots:
            assert end(forked(executor, [f"out={tmp_path / 'seen.json'}"], tmp_path / "0", **slot)) == 0
            seen = json.loads((tmp_path / "seen.json").read_text())["variables"]
            assert {name: seen[name] for name in slot} == slot
        job = executor.start(mirror(f"out={tmp_path / 'seen.json'}"), tmp_path / "1", {"OMP_NUM_THREADS": "2"})
        assert not isinstance(job, ForkedJob) and end(job) == 0
    assert len(said) == 1 and "environment" in said[0]


def test_an_import_without_end_is_given_up(
    tmp_path: Path, modules: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (modules / "endless.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr("tunelab.search.executors.forking.IMPORT_SECONDS", 0.5)
    with closing(ready(ForkingExecutor(said.append, ["endless"]))) as executor:
        assert end(executor.start(mirror(f"out={tmp_path / 'seen.json'}"), tmp_path / "0", {})) == 0
    assert len(said) == 1 and "takes too long" in said[0]


@pytest.mark.parametrize("text", [10000 * "x", 10000 * "ü", 10000 * "训", 30000 * "\udce4"])
def test_a_long_command_line_reaches_a_fork_as_it_is(tmp_path: Path, forking: ForkingExecutor, text: str) -> None:
    words = [f"out={tmp_path / 'seen.json'}", f"text={text}"]
    assert end(forked(forking, words, tmp_path / "0")) == 0
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["words"][1:] == words and seen["shown"] == mirror(*words)


def test_a_command_line_without_room_is_a_process(tmp_path: Path, forking: ForkingExecutor) -> None:
    job = forking.start(mirror(f"out={tmp_path / 'seen.json'}", "x=" + 40000 * "1"), tmp_path / "0", {})
    assert not isinstance(job, ForkedJob) and end(job) == 0
    assert (tmp_path / "0" / "trial.log").read_text() == "said\ncried\nbye\n"


def test_no_server_outlives_its_engine(tmp_path: Path, modules: Path) -> None:
    search = [sys.executable, str(ROOT / "tests" / "support" / "instant_search.py"), str(tmp_path / "s")]
    process = subprocess.Popen([*search, "2", "0", "sleep=300"], env={**os.environ, FORKED: "1"})
    until(lambda: find_process(tmp_path / "s" / "0"))
    servers = children(process.pid)
    process.kill()
    process.wait()

    assert len(servers) == 1
    until(lambda: not Path(f"/proc/{servers[0]}").exists())
    trial = find_process(tmp_path / "s" / "0")
    assert trial  # it is watched by the next engine, which `test_engine` shows
    os.killpg(int(trial.split(":")[1]), signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_finished_study_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(engine(tmp_path, trials=1))
    monkeypatch.setenv(FORKED, "1")
    made = engine(tmp_path, trials=1)

    assert run(made) and isinstance(made.pool.executor, ForkingExecutor) and made.pool.executor.server is None


def test_a_stop_while_packages_are_imported_ends_the_search_at_once(
    tmp_path: Path, modules: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(600)")
    made: Any = engine(tmp_path / "study", trials=1)
    made.pool.executor = ForkingExecutor(said.append, ["slow"])
    made.on_poll = lambda engine: engine.stop()
    began = time.monotonic()

    assert run(made) is False and time.monotonic() - began < 300
    assert not made.trials() and not said
