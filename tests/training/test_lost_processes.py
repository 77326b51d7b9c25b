"""A run on several processes that loses one: its record names the error of that process."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, instructions
from tunelab.errors import ConfigError
from tunelab.runs.run_dir import RunDirectory
from tunelab.training import lost_processes
from tunelab.training.lost_processes import ProcessLost, ProcessWatch

BROKEN = RuntimeError("Connection closed by peer")


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessWatch:
    """The watch of a run on two processes that torchrun started."""
    monkeypatch.setattr(lost_processes, "POLL", 0.01)
    return ProcessWatch(RunDirectory(tmp_path), lambda fault: None)


def test_a_broken_connection_names_the_error_of_the_other_process(watch: ProcessWatch) -> None:
    watch.folder.write_rank_error(1, "ValueError: no such label\nmore", "Traceback ...")

    cause = watch.cause_of(BROKEN, f"RuntimeError: {BROKEN}")

    assert cause is not None and cause.exit_status == 1
    assert str(cause).startswith("process 1 of the run failed: ValueError: no such label; where")
    assert "Traceback" in watch.folder.rank_error(1).read_text() and str(watch.folder.rank_error(1)) in str(cause)


def test_the_first_process_to_fail_is_the_cause(watch: ProcessWatch) -> None:
    for at, (rank, reason) in enumerate([(3, "OSError: gone"), (1, f"RuntimeError: {BROKEN}")]):
        watch.folder.write_rank_error(rank, reason, "")
        os.utime(watch.folder.rank_error(rank), ns=(at, at))

    assert "process 3 of the run failed: OSError: gone" in str(watch.cause_of(BROKEN, f"RuntimeError: {BROKEN}"))


@pytest.mark.parametrize("fault", [ConfigError("lr=-1"), KeyboardInterrupt(), ValueError("the same")])
def test_an_error_of_all_processes_is_its_own_cause(watch: ProcessWatch, fault: BaseException) -> None:
    reason = f"{type(fault).__name__}: {fault}"
    watch.folder.write_rank_error(1, reason, "")

    assert watch.cause_of(fault, reason) is None
    assert not watch.folder.rank_error(1).exists()


def test_an_error_of_this_process_alone_is_its_own_cause(watch: ProcessWatch) -> None:
    assert watch.cause_of(ValueError("mine"), "ValueError: mine") is None


@pytest.mark.parametrize(("code", "how"), [("import os; os.kill(os.getpid(), 9)", "SIGKILL"), ("exit(7)", "status 7")])
def test_a_process_that_ends_without_a_word_is_named(watch: ProcessWatch, code: str, how: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", code])
    watch.launcher = cast(Any, SimpleNamespace(procs=[process]))
    process.wait()

    assert f"process 1 of the run ended without a word ({how}" in str(watch.cause_of(BROKEN, "x")).replace("exit ", "")


@pytest.mark.parametrize("status", [0, 130, 143, -15])
def test_a_process_that_is_done_or_was_stopped_by_a_signal_has_not_failed(watch: ProcessWatch, status: int) -> None:
    process: Any = SimpleNamespace(poll=lambda: status)
    watch.launcher = cast(Any, SimpleNamespace(procs=[process]))

    assert watch.failure() is None


def test_a_main_process_that_waits_for_ever_is_ended_with_its_record(
    watch: ProcessWatch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lost_processes, "GRACE", 0.01)
    left, recorded, over = list[int](), list[ProcessLost](), threading.Event()
    monkeypatch.setattr(os, "_exit", lambda status: (left.append(status), over.set()))
    watch.end = recorded.append
    trainer: Any = SimpleNamespace(world_size=2, strategy=SimpleNamespace(launcher=None))
    watch.attach(trainer)

    watch.folder.write_rank_error(1, "KeyError: 'x'", "")

    assert over.wait(30)
    assert left == [1] and "KeyError" in str(recorded[0]) and "ProcessLost: process 1" in capsys.readouterr().err


FAILING = """
import os
from lightning.pytorch.callbacks import Callback

class Failing(Callback):
    def __init__(self, when):
        self.when = when
        self.fail("build", os.environ.get("LOCAL_RANK") == "1")
    def on_train_batch_start(self, trainer, module, batch, index):
        self.fail("step", trainer.global_rank == 1 and trainer.global_step == 1)
    def on_validation_start(self, trainer, module):
        self.fail("validation", trainer.global_rank == 1)
    def fail(self, when, here):
        if here and when == self.when:
            raise KeyError(f"broken {when}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["build", "step", "validation"])
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu", "torchrun"])
def test_a_run_ends_as_failed_with_the_error_of_the_process_that_it_lost(
    tmp_path: Path, trainer: str, when: str
) -> None:
    (tmp_path / "mylab.py").write_text(FAILING)
    words = ["data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, "batch_size=6", "max_steps=4"]
    words += ["plugins=[mylab]", f"+callbacks.failing={{_target_:mylab.Failing,when:{when}}}", "eval.generate=false"]
    words += [f"trainer={'ddp_cpu' if trainer == 'torchrun' else trainer}", f"hydra.run.dir={tmp_path / 'run'}"]
    by = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if trainer == "torchrun" else []
    places = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))

    done = subprocess.run(
        [sys.executable, *by, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places},
    )  # fmt: skip

    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert done.returncode == 1, done.stderr[-2000:]
    assert manifest["status"] == "failed"
    assert manifest["reason"].startswith(f"process 1 of the run failed: KeyError: 'broken {when}'; where"), manifest
    assert not RunDirectory(tmp_path / "run").is_held()
