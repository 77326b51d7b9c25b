"""Requests that reach a W&B server: read on the wire, from a stand-in on the loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_wandb_server import Told, stand_in
from support.paths import ROOT

CODE = """
import sys
from pathlib import Path
import torch
from tunelab.config.schema import LoggerConfig
from tunelab.tracking.loggers import build_loggers, finish_loggers
from tunelab.tracking.base import RunResults
folder = Path('run')
(folder / 'export').mkdir(parents=True)
(folder / 'export' / 'config.json').write_text('{"a": 1}')
block = LoggerConfig(kind='wandb', mode=sys.argv[1], project='demo', group='study', job_type='trial')
loggers = build_loggers(block,
    folder=folder, run_config={'optimizer': {'lr': 0.1}}, name='study/3 lr=0.1', monitor='val/f1', mode='max',
    resume_from_step=None)
for step, score in enumerate([0.25, 0.75, 0.5]):
    for logger in loggers:
        logger.log_metrics({'val/f1': score, 'val/loss': 1 - score}, step)
tracker = loggers[1]
tracker.log_histograms({'weight': torch.tensor([1.0, 2.0, float('nan')])}, 2)
row = {'row': 0, 'text': 'tea', 'label': 'good', 'prediction': 'bad', 'probabilities': {'good': 0.25, 'bad': 0.75}}
confusion, files = {'test': [[3, 1], [0, 2]]}, {'export': folder / 'export'}
tracker.log_results(RunResults({'test/f1': 0.5, 'val/f1': 0.7}, ['good', 'bad'], confusion, [row], files))
finish_loggers(loggers, 'success')
print(tracker.mode)
"""


def run(folder: Path, address: str, *command: str) -> str:
    """A command in a process of its own, with a key for the stand-in; its standard output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    ours = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40, "HOME": str(folder)}
    ours["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(command, cwd=folder, env=kept | ours, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[pytest.param("online", marks=pytest.mark.slow), "offline, synced later"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """All that the stand-in heard of one run, sent while it went or by `wandb sync` afterwards."""
    folder = tmp_path_factory.mktemp("wire")
    with stand_in() as (address, heard):
        mode = request.param.partition(",")[0]
        assert run(folder, address, sys.executable, "-c", CODE, mode).splitlines()[-1] == mode
        if mode == "offline":
            assert heard == []
            (offline,) = (folder / "run" / "wandb").glob("offline-run-*")
            run(folder, address, str(Path(sys.executable).with_name("wandb")), "sync", str(offline))
        yield heard


def variables(told: Told, operation: str) -> list[dict[str, Any]]:
    return [said for name, said in told if name == operation]


def uploads(told: Told, ending: str) -> list[bytes]:
    return [said["body"] for path, said in told if path.startswith("/put/") and path.endswith(ending)]


def test_a_run_arrives_under_its_group_with_a_telling_name_and_a_config_that_can_be_searched(told: Told) -> None:
    (first, *_) = [said for said in variables(told, "UpsertBucket") if said["displayName"]]
    assert (first["displayName"], first["groupName"], first["jobType"]) == ("study/3 lr=0.1", "study", "trial")
    assert json.loads(first["config"])["optimizer"] == {"value": {"lr": 0.1}}


def test_curves_and_histograms_arrive_with_their_steps(told: Told) -> None:
    streams = [
        said["files"]["wandb-history.jsonl"]["content"] for name, said in told if "history" in str(said.get("files"))
    ]
    lines = [json.loads(line) for stream in streams for line in stream]
    assert [(line["trainer/global_step"], line["val/f1"]) for line in lines if "val/f1" in line] == [
        (0, 0.25),
        (1, 0.75),
        (2, 0.5),
    ]
    assert not [line for line in lines if "test/f1" in line]
    (drawn,) = [line["gradients/weight"] for line in lines if "gradients/weight" in line]
    assert sum(drawn["values"]) == 2  # the number that is none is left out


def test_the_summary_holds_the_best_value_of_each_validation_score_by_its_own_direction(told: Told) -> None:
    summary = json.loads(uploads(told, "wandb-summary.json")[-1])
    assert summary["val/f1"] == {"max": 0.75}
    assert summary["val/loss"] == {"min": 0.25}
    assert summary["test/f1"] == 0.5  # in the summary only: a chart of one point says nothing
    assert summary["status"] == "success"


def test_confusion_matrix_predictions_and_export_arrive_as_what_they_are(told: Told) -> None:
    (matrix,) = uploads(told, "confusion_table.table.json")
    assert json.loads(matrix)["data"] == [
        ["good", "good", 3],
        ["good", "bad", 1],
        ["bad", "good", 0],
        ["bad", "bad", 2],
    ]
    (answers,) = uploads(told, "predictions.table.json")
    table = json.loads(answers)
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == {
        "row": 0,
        "text": "tea",
        "label": "good",
        "prediction": "bad",
        "probabilities": 0.75,
    }
    types = [said["input"]["artifactTypeName"] for said in variables(told, "CreateArtifact")]
    assert types.count("model") == 1
    assert uploads(told, "/config.json") == [b'{"a": 1}']
    assert len(variables(told, "CommitArtifact")) == len(types)
