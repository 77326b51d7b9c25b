"""Runs that several processes share: spread models, resuming on another number of them, torchrun and srun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, instructions, settings
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.launcher import check_started_alone, launched_by
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.run_search import prepare
from tunelab.training import processes
from tunelab.training.trainer import build_trainer

TRAINING = [
    "data=instruction", *MODEL, *QUIET, "batch_size=6", "scheduler=constant", "trainer.log_every_n_steps=1",
    "max_epochs=4", "micro_tokens=60", "eval.generate_rows=4", "test=false",
]  # fmt: skip


def train(*words: str) -> None:
    """Train in a process of its own."""
    done = subprocess.run(
        [sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint."""
    state = read_checkpoint(RunDirectory(folder).last)["state_dict"]
    return {name: weight for name, weight in state.items() if name.startswith("model.")}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between weights of the same names."""
    assert one.keys() == other.keys()
    return max(float((weight - other[name]).abs().max()) for name, weight in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["false", "true"])
def test_a_spread_run_resumes_bit_equal_and_on_one_process_to_rounding(tmp_path: Path, parts: str) -> None:
    # Given a model on two processes that is trained through, and one on one process
    spread = [*TRAINING, "trainer=fsdp_cpu", f"trainer.fsdp.sharded_checkpoints={parts}"]
    data = f"data.train={instructions(tmp_path)}"
    train(*spread, data, "max_steps=8", f"hydra.run.dir={tmp_path / 'whole'}")
    train(*TRAINING, data, "max_steps=8", "trainer=cpu", f"hydra.run.dir={tmp_path / 'alone'}")

    # When others stop after four steps, in mid-epoch, and go on, on two processes or on one
    for name, more in (("same", ()), ("other", ("trainer=cpu",))):
        train(*spread, data, "max_steps=4", f"hydra.run.dir={tmp_path / name}")
        train(f"resume={tmp_path / name}", "max_steps=8", *more)

    # Then weights are the same bits on two, and the same to rounding on one; so are the exports
    whole = last_weights(tmp_path / "whole")
    assert largest_difference(whole, last_weights(tmp_path / "same")) == 0
    for name in ("alone", "other"):
        assert largest_difference(whole, last_weights(tmp_path / name)) < 2e-6
    one, two = (load_file(RunDirectory(tmp_path / name).export / "model.safetensors") for name in ("whole", "alone"))
    assert largest_difference(one, two) < 2e-6


SPLIT = ["trainer=fsdp_cpu", "trainer.fsdp.tensor_parallel=2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "before", "after"),
    [("true", SPLIT, ["trainer=cpu"]), ("false", ["trainer=fsdp_cpu"], SPLIT)],
    ids=["in parts, and on one process", "whole, and before that spread"],
)
def test_a_run_with_split_layers_resumes_bit_equal_and_otherwise_to_rounding(
    tmp_path: Path, parts: str, before: list[str], after: list[str]
) -> None:
    # Given a model whose layers two processes split, and one on one process
    run = [*TRAINING, "test=true", f"data.train={instructions(tmp_path)}"]
    kept = f"trainer.fsdp.sharded_checkpoints={parts}"
    train(*run, *SPLIT, kept, "max_steps=8", f"hydra.run.dir={tmp_path / 'whole'}")
    train(*run, "trainer=cpu", "max_steps=8", f"hydra.run.dir={tmp_path / 'alone'}")

    # When others stop in mid-epoch and go on: split as before, and otherwise before or after
    for name, first, more in (("same", SPLIT, []), ("other", before, after)):
        train(*run, *first, kept, "max_steps=4", f"hydra.run.dir={tmp_path / name}")
        train(f"resume={tmp_path / name}", "max_steps=8", *more)

    # Then weights are the same bits as they were split, and the same to rounding else; so are scores and exports
    whole = last_weights(tmp_path / "whole")
    assert largest_difference(whole, last_weights(tmp_path / "same")) == 0
    for name in ("alone", "other"):
        assert largest_difference(whole, last_weights(tmp_path / name)) < 2e-6, name
    one, two = (load_file(RunDirectory(tmp_path / name).export / "model.safetensors") for name in ("whole", "alone"))
    assert largest_difference(one, two) < 2e-6
    scores, right = (json.loads(RunDirectory(tmp_path / name).metrics.read_text()) for name in ("whole", "alone"))
    assert scores == pytest.approx(right, rel=1e-4, abs=1e-6)
    texts = [RunDirectory(tmp_path / name).predictions.read_text() for name in ("whole", "alone")]
    assert texts[0] == texts[1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_two_machines_share_one_run_folder(tmp_path: Path, launcher: str) -> None:
    # Given two agents of torchrun on the loopback address, or two tasks with the variables that srun sets
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [
        "train.py", *TRAINING, f"data.train={instructions(tmp_path)}", "trainer=fsdp_cpu", "trainer.devices=1",
        "trainer.num_nodes=2", "max_steps=3", "save=false",
        f"hydra.run.dir={tmp_path}/runs/${{now:%H-%M-%S-%f}}",
    ]  # fmt: skip
    agent = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    processes = []
    for node in range(2):
        torchrun = [*agent, f"--node-rank={node}", f"--master-port={port}"] if launcher == "torchrun" else []
        slurm = {
            "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_PROCID": str(node),
            "SLURM_LOCALID": "0", "SLURM_NODEID": str(node), "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **({} if torchrun else slurm)}
        command = [sys.executable, *torchrun, *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **quiet))  # type: ignore[call-overload]

    # When both have ended
    errors = [process.communicate(timeout=400)[1] for process in processes]

    # Then they have trained in one folder
    assert [process.returncode for process in processes] == [0, 0], errors[0][-1500:] + errors[1][-1500:]
    [folder] = (tmp_path / "runs").iterdir()
    assert read_checkpoint(RunDirectory(folder).last)["global_step"] == 3


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Stands in for torchrun or srun: sets variables as it does."""

    def start(name: str, **variables: str) -> None:
        if name == "torchrun":
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)

    launched_by.cache_clear()
    yield start
    launched_by.cache_clear()


TORCHRUN = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("name", "variables"),
    [("torchrun", TORCHRUN), ("srun", {**SRUN, "SLURM_NTASKS_PER_NODE": "2"})],
    ids=["torchrun", "srun"],
)
def test_devices_that_a_launcher_has_not_started_are_refused(
    launcher: Callable[..., None], name: str, variables: dict[str, str]
) -> None:
    launcher(name, **variables)

    assert processes.launcher_faults(settings("trainer=ddp_cpu", "trainer.num_nodes=2").trainer) == []
    [fault] = processes.launcher_faults(settings("trainer=ddp_cpu").trainer)
    assert f"{name} started 2 processes on each of 2 machines" in fault
    assert "trainer.devices=2 trainer.num_nodes=2" in fault
    with pytest.raises(ConfigError, match="cv.folds under torchrun or srun with 4 processes"):
        check_started_alone("cv.folds")


def test_srun_that_does_not_say_how_many_processes_a_machine_has_is_refused(
    launcher: Callable[..., None],
) -> None:
    launcher("srun", **SRUN)

    with pytest.raises(ConfigError, match="SLURM gives this job 4 processes .* --ntasks-per-node"):
        processes.launcher_faults(settings("trainer=ddp_cpu").trainer)


@pytest.mark.parametrize("variables", [{}, {**SRUN, "SLURM_NTASKS": "1"}], ids=["nothing", "one task of SLURM"])
def test_several_machines_that_nothing_has_started_are_refused(
    launcher: Callable[..., None], variables: dict[str, str]
) -> None:
    launcher("nothing", **variables)

    [fault] = processes.launcher_faults(settings("trainer=ddp_cpu", "trainer.num_nodes=2").trainer)
    assert fault.startswith("trainer.num_nodes=2") and "torchrun or srun" in fault


def test_one_task_of_slurm_starts_the_processes_of_its_devices_itself(
    launcher: Callable[..., None], tmp_path: Path
) -> None:
    launcher("srun", **{**SRUN, "SLURM_NTASKS": "1"})

    trainer = build_trainer(settings("trainer=ddp_cpu"), tmp_path, [], [])

    assert trainer.world_size == 2


def test_a_search_that_torchrun_starts_several_times_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="a search under torchrun"):
        prepare(OmegaConf.create({}), [])


def test_a_process_that_waits_for_others_ends_at_a_signal(tmp_path: Path) -> None:
    # Given the first of two tasks of srun, whose other one never comes
    code = (
        "import signal, sys; from pathlib import Path; from tunelab.training import processes; "
        "from tunelab.runs.launcher import launched_by; launched_by(); "
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143)); "
        f"print('waits', flush=True); processes.agree_on_folder(Path({str(tmp_path)!r}))"
    )
    variables = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **SRUN, **variables}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"waits\n"
    time.sleep(1)

    process.terminate()

    assert process.wait(timeout=60) in (-signal.SIGTERM, 143)  # the latter where it has not begun to wait


def test_processes_that_train_twice_share_the_folder_of_each_run() -> None:
    code = (
        "import os; from pathlib import Path; from tunelab.training.processes import agree_on_folder, shared_folder\n"
        "own = [Path(f'run_{turn}_of_{os.environ[\"RANK\"]}') for turn in range(2)]\n"
        "print(*map(agree_on_folder, own), *map(shared_folder, own), flush=True)"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]

    lines = [process.communicate(timeout=120)[0].split() for process in ranks]

    assert lines == [["run_0_of_0", "run_1_of_0"] * 2] * 2
