"""Searches as a user starts them, with real trainings of a tiny model."""

import json
import sys
from pathlib import Path
from typing import Any

from support import warm_processes
from support.paths import ROOT

TINY = [
    *("model=scratch", "model.depth=1", "model.width=32", "model.heads=2", "data.limit=200", "max_epochs=1"),
    *("logger=csv", "eval.generate=false", "eval.test_rows=8", "eval.base=false"),
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *arguments]


def search(*arguments: str, status: int = 0) -> str:
    done = warm_processes.run(command(*arguments)[1:])
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def lines(study: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]


def summary(study: Path) -> dict[str, Any]:
    return dict(json.loads((study / "study.json").read_text()))
