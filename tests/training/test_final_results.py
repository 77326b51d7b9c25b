"""The results of a finished run in trackers, through a whole run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.tiny_runs import MODEL, labelled, settings
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.lifecycle import first_session_overrides
from tunelab.training.run import fine_tune

QUIET = [
    "trainer.enable_progress_bar=false",
    "logger.mode=offline",
    "logger.rows=5",
    "logger.artifacts=[export,report]",
]


def test_a_run_leaves_name_confusion_matrix_predictions_and_export_on_its_page(tmp_path: Path) -> None:
    data = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    words = [*data, "max_epochs=1", "lr=0.01", *MODEL, *QUIET]
    fine_tune(settings(*words), tmp_path / "run", overrides=[*words[3:6], "logger.rows=5"])
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    wandb = str(Path(sys.executable).with_name("wandb"))
    done = subprocess.run([wandb, "leet", "inspect", "--json", str(run)], check=True, capture_output=True, text=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (about,) = [record["run"] for record in records if record["type"] == "run"]
    assert about["display_name"] == "run data.label=label max_epochs=1 lr=0.01"
    history: dict[str, Any] = {}
    for record in records:
        history |= record["history"]["item"] if record["type"] == "history" else {}
    assert history["test/confusion_table.nrows"] == 9
    assert history["test/predictions.nrows"] == min(5, len(RunDirectory(tmp_path / "run").read_predictions()))
    media = [path for path in run.rglob("*.table.json") if "predictions" in path.name]
    table = json.loads(media[0].read_text())
    assert {"row", "text", "label", "prediction"} <= set(table["columns"])
    assert {"model", "report"} <= {record["artifact"]["type"] for record in records if record["type"] == "artifact"}
    assert (tmp_path / "run" / "report" / "report.html").is_file()


def test_a_run_that_goes_on_keeps_its_name() -> None:
    assert first_session_overrides({}, ["lr=0.1"]) == ["lr=0.1"]
    assert first_session_overrides(
        {"sessions": [{"overrides": ["lr=0.1"]}, {"overrides": ["resume=x"]}]}, ["resume=x"]
    ) == ["lr=0.1"]
