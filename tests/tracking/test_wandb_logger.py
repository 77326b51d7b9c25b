"""W&B runs: readable offline, never asking, never stopping a training, never holding a secret."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from support.paths import ROOT
from tunelab.config.schema import LoggerConfig
from tunelab.tracking import wandb_start
from tunelab.tracking.wandb_logger import STEP_METRIC, WandbRun
from tunelab.tracking.wandb_start import start_wandb

CANARY = "canary-0123456789-wandb"
CONFIG = {"kind": "wandb", "mode": "auto", "project": "demo", "group": "study", "tags": ["a", "b"], "notes": "why"}


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(wandb_start, "_login_hosts", lambda: ("api.example.com",))
    yield
    if wandb.run is not None:
        wandb.run.finish()


def start(folder: Path, config: dict[str, Any] = CONFIG, **changes: Any) -> WandbRun | None:
    arguments: dict[str, Any] = {"run_config": {"lr": 0.1}, "name": "run", "monitor": "val/f1", "mode": "max"}
    return start_wandb(LoggerConfig(**config), folder=folder, **{**arguments, **changes})


def inspect(folder: Path, *options: str) -> str:
    (run,) = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", *options, "--json", str(run)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_offline_run_reads_back_with_config_curves_and_best_value(tmp_path: Path) -> None:
    lines: list[str] = []
    run = start(tmp_path, tell=lines.append)
    assert run is not None
    for step, score in enumerate([0.25, 0.75, 0.5]):
        run.log_metrics({"val/f1": score}, step)
    run.finish("success")
    found = json.loads(inspect(tmp_path, "--summary"))
    assert found["config"] == {"lr": 0.1}
    assert found["summary"]["val/f1"] == {"max": 0.75}
    assert found["summary"]["status"] == "success"
    assert (found["project"], found["name"], found["tags"], found["notes"]) == ("demo", "run", ["a", "b"], "why")
    records = [json.loads(line) for line in inspect(tmp_path).splitlines()]
    curve = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [(item[STEP_METRIC], item["val/f1"]) for item in curve] == [(0, 0.25), (1, 0.75), (2, 0.5)]
    assert [record["run"]["run_group"] for record in records if record["type"] == "run"] == ["study"]
    assert len(lines) == 1
    assert f"wandb leet {tmp_path / 'wandb'}" in lines[0]
    assert "wandb sync" in lines[0]
    assert set(os.listdir(tmp_path)) == {"wandb"}


def test_two_runs_in_one_process_stay_two_runs_and_leave_the_environment_as_it_was(tmp_path: Path) -> None:
    before = {name: value for name, value in os.environ.items() if name in ("WANDB_MODE", "WANDB_DATA_DIR")}
    for place in ("one", "two"):
        run = start(tmp_path / place, run_config={"place": place})
        assert run is not None
        run.finish("success")
        assert json.loads(inspect(tmp_path / place, "--summary"))["config"] == {"place": place}
    assert {name: value for name, value in os.environ.items() if name in ("WANDB_MODE", "WANDB_DATA_DIR")} == before


def test_a_server_out_of_reach_means_an_offline_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    real, asked = wandb.init, []

    def init(*, mode: str, settings: wandb.Settings, **options: Any) -> Any:
        asked.append((mode, settings.init_timeout))
        if mode == "online":
            raise wandb.errors.CommError("no network")
        return real(mode=mode, settings=settings, **options)

    monkeypatch.setattr(wandb, "init", init)
    run = start(tmp_path)
    assert run is not None
    assert asked == [("online", 20), ("offline", 20)]
    assert run.mode == "offline"
    assert "no network" in caplog.text
    assert "offline" in caplog.text
    run.log_metrics({"val/f1": 1.0}, 0)
    run.finish("success")
    assert inspect(tmp_path)


def test_a_wandb_that_cannot_start_or_log_stops_nothing_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(OSError("no space left")))
        run = start(tmp_path / "dead")
    assert run is not None
    run.log_metrics({"a": 1.0}, 0)
    run.finish("failed")
    assert "no space left" in caplog.text

    caplog.clear()
    run = start(tmp_path / "weak")
    assert run is not None
    with monkeypatch.context() as patch:
        patch.setattr(run.experiment, "log", lambda *_: (_ for _ in ()).throw(RuntimeError("broken pipe")))
        run.log_metrics({"a": 1.0}, 0)
        run.log_metrics({"a": 1.0}, 1)
    assert caplog.text.count("broken pipe") == 1
    run.finish("success")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run on a machine without key, netrc or terminal, configured to be online, with a secret in every place."""
    folder = tmp_path_factory.mktemp("stranger")
    code = """
import os
from pathlib import Path
from tunelab.config.schema import LoggerConfig
from tunelab.tracking.loggers import build_loggers, finish_loggers
key = os.environ['OTHER_API_KEY']
loggers = build_loggers(LoggerConfig(kind='wandb', mode='online', notes=key, tags=[key]), folder=Path('run'),
    run_config={'a': key, 'hub_token': 'tiny', 'n': [f'x{key}']}, name=key, monitor='val/loss', mode='min',
    resume_from_step=None)
[logger.log_metrics({'val/loss': 1.0}, 0) for logger in loggers]
finish_loggers(loggers, 'success')
os.write(1, b'done')
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    environment |= {"OTHER_API_KEY": CANARY, "HOME": str(folder), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, f"notes={CANARY}"]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500
    )
    return folder, done


def test_without_key_and_terminal_nothing_raises_or_asks(
    stranger: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = stranger
    assert done.returncode == 0, done.stderr
    hint, end = done.stdout.splitlines()
    assert "no W&B key was found" in hint
    assert end == "done"
    assert "\x1b" not in done.stdout + done.stderr


def test_no_file_of_a_run_holds_a_secret(stranger: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = stranger
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_disabled_tracker_writes_nothing(tmp_path: Path) -> None:
    assert start(tmp_path, {**CONFIG, "mode": "disabled"}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_goes_on_keeps_its_id_and_a_new_one_gets_its_own(tmp_path: Path) -> None:
    ids = []
    for resume in (None, 5, None):
        run = start(tmp_path, resume_from_step=resume)
        assert run is not None
        ids.append(run.version)
        run.finish("success")
    assert ids[0] == ids[1] != ids[2]
