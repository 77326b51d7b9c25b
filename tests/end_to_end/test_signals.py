"""SIGTERM and SIGINT end a run at a safe point, with the promised exit status and something to go on from."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import warm_processes
from support.paths import ROOT
from support.tiny_runs import MODEL, instructions
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory


def start(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    """A run that would take minutes, in a process group of its own."""
    given = [
        "data=instruction", f"data.train={instructions(tmp_path, 200)}", *MODEL, "logger=none", "batch_size=4",
        "max_epochs=2000", "callbacks.early_stopping=false", "callbacks.save_every=5", "trainer.accelerator=cpu",
        f"hydra.run.dir={tmp_path / 'run'}", *more,
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *given],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for_training(process: subprocess.Popen[str], tmp_path: Path) -> None:
    """Until the first checkpoint is there."""
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert process.poll() is None, process.communicate()[0][-2000:]
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "status", "devices", "group"),
    [
        (signal.SIGTERM, 143, 1, False),
        (signal.SIGINT, 130, 1, True),
        pytest.param(signal.SIGTERM, 143, 2, True, marks=pytest.mark.slow),  # two interpreters import everything
    ],
    ids=["term", "ctrl-c", "term-to-two-ranks"],
)
def test_a_signal_ends_a_run_at_a_safe_point(
    number: int, status: int, devices: int, group: bool, tmp_path: Path
) -> None:
    process = start(tmp_path, f"trainer.devices={devices}")
    wait_for_training(process, tmp_path)
    time.sleep(0.5)

    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=500)

    assert process.returncode == status, output[-2000:]
    folder = RunDirectory(tmp_path / "run")
    assert folder.read_manifest()["status"] == "pre-empted"
    assert read_checkpoint(folder.last)["global_step"] > 0
    assert "Traceback" not in output


def test_a_killed_run_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_training(process, tmp_path)
    process.kill()
    process.communicate()
    done = int(read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"])

    words = [f"resume={tmp_path / 'run'}", f"max_steps={done + 3}", "eval.max_new_tokens=2"]
    resumed = warm_processes.run(["train.py", *words])

    assert resumed.returncode == 0, resumed.stderr[-2000:]
    card = RunDirectory(tmp_path / "run").read_manifest()
    assert card["status"] == "finished" and len(card["sessions"]) == 1
    assert f"going on after step {done}" in resumed.stdout


def test_ctrl_c_while_packages_load_ends_without_a_traceback(tmp_path: Path) -> None:
    # Given a first package in whose loading the key is pressed
    (tmp_path / "hydra.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    places = os.pathsep.join([str(tmp_path), str(ROOT / "src")])

    done = subprocess.run(
        [sys.executable, "train.py"], cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": places},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have started us deaf to it
    )  # fmt: skip

    assert done.returncode == -signal.SIGINT
    assert not done.stderr
