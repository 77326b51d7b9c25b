"""Folds, confirmations and the evaluation of the best, forked: bit for bit what new processes leave."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from support.search_commands import TINY, search

CLOCK = ("train/time", "seconds", "per_second", "memory", "_mb", "time", "tokens_per")


def scores(file: Path) -> dict[str, Any]:
    """The scores of a run, those of the clock and the machine left out."""
    values: dict[str, Any] = json.loads(file.read_text())
    return {name: value for name, value in values.items() if not any(part in name for part in CLOCK)}


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=400, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "processes of their own" not in done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_confirmation_has_the_scores_of_new_processes(tmp_path: Path) -> None:
    search("lr=1e-3,1e-2", "search.test_best=false", "search.fork=false", f"hydra.sweep.dir={tmp_path / 'new'}")
    shutil.copytree(tmp_path / "new", tmp_path / "forked")
    file = tmp_path / "forked" / "search.json"
    file.write_text(file.read_text().replace("search.fork=false", "search.fork=true"))

    for name in ("new", "forked"):
        confirm = "import sys; from tunelab.cli.main import main; main()"
        run("-c", confirm, "confirm", str(tmp_path / name), "--top", "1", "--seeds", "2")

    runs = sorted(path.relative_to(tmp_path / "new") for path in (tmp_path / "new" / "confirm").rglob("metrics.json"))
    assert len(runs) == 4
    assert all(scores(tmp_path / "new" / run) == scores(tmp_path / "forked" / run) for run in runs)


@pytest.mark.slow
def test_folds_have_the_scores_and_weights_of_new_processes(tmp_path: Path) -> None:
    for fork in ("true", "false"):
        run("train.py", *TINY, "cv.folds=2", f"search.fork={fork}", f"hydra.run.dir={tmp_path / fork}")

    for fold in ("fold_0", "fold_1"):
        forked, new = tmp_path / "true" / fold, tmp_path / "false" / fold
        assert scores(forked / "metrics.json") == scores(new / "metrics.json")
        assert (forked / "predictions.jsonl").exists() == (new / "predictions.jsonl").exists()


@pytest.mark.slow
def test_the_best_of_a_search_has_the_test_scores_and_the_export_of_a_new_process(tmp_path: Path) -> None:
    for fork in ("true", "false"):
        search("lr=1e-3,1e-2", f"search.fork={fork}", f"hydra.sweep.dir={tmp_path / fork}")

    best = json.loads((tmp_path / "true" / "study.json").read_text())["test"]["trial"]
    forked, new = (tmp_path / fork / str(best) for fork in ("true", "false"))
    assert any(name.startswith("test/") for name in scores(new / "metrics.json"))
    assert scores(forked / "metrics.json") == scores(new / "metrics.json")
    weights = "export/model.safetensors"
    assert (forked / weights).read_bytes() == (new / weights).read_bytes()
    assert (forked / "predictions.jsonl").read_bytes() == (new / "predictions.jsonl").read_bytes()
