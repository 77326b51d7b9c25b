"""Trackio: a run in its local store, read back from there."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

pytest.importorskip("trackio", reason="logger=trackio is an extra")

CODE = """
from pathlib import Path
from tunelab.config.schema import LoggerConfig
from tunelab.tracking.loggers import build_loggers, finish_loggers
from tunelab.tracking.base import RunResults
said = []
loggers = build_loggers(LoggerConfig(kind='trackio', project='demo', group='study'), folder=Path('run'),
    run_config={'optimizer': {'lr': 0.1}, 'hub_token': 'canary-0123456789'}, name='3 lr=0.1', monitor='val/f1',
    mode='max', resume_from_step=None, tell=said.append)
for step in range(3):
    for logger in loggers:
        logger.log_metrics({'val/f1': step / 4, 'epoch': 0, 'layers/1/grad_norm': 2.0}, step)
row = {'row': 0, 'label': 'a', 'prediction': 'b'}
loggers[1].log_results(RunResults({'test/f1': 0.5}, ['a'], {'test': [[1]]}, [row]))
finish_loggers(loggers, 'success')
print(said)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that Trackio wrote, and what the process printed."""
    folder = tmp_path_factory.mktemp("trackio")
    ours = {
        "HOME": str(folder),
        "TRACKIO_DIR": str(folder / "store"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=folder, env=os.environ | ours, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return folder / "store", done.stdout


def test_curves_settings_and_tables_are_in_the_store(store: tuple[Path, str]) -> None:
    (database,) = store[0].glob("demo*.db")
    with sqlite3.connect(database) as base:
        lines = [
            (step, json.loads(text)) for step, text in base.execute("select step, metrics from metrics order by id")
        ]
        configs = [json.loads(text) for (text,) in base.execute("select config from configs")]
    assert [(step, line["val/f1"]) for step, line in lines if "val/f1" in line] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    named = {name for _, line in lines for name in line}
    assert "train/layers/1/grad_norm" in named  # below the losses; the page orders groups by name
    assert not named & {"layers/1/grad_norm", "epoch", "test/f1"}
    shown = next(line for _, line in lines if "test/predictions" in line)
    assert shown["scores"]["_value"] == [{"score": "f1", "test": 0.5}]
    assert shown["test/predictions"]["_value"] == [{"row": 0, "label": "a", "prediction": "b"}]
    assert configs[0]["optimizer"] == {"lr": 0.1}
    assert configs[0]["_Group"] == "study"
    assert "canary" not in str(configs)


def test_its_banner_gives_way_to_one_line_of_ours(store: tuple[Path, str]) -> None:
    assert store[1].strip() == "['Trackio: open with: trackio show --project demo']"
