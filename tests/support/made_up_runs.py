"""Run folders as a training leaves them, made up without one."""

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab.runs.run_dir import RunDirectory

NASTY = "<script>document.title='broken'</script><img src=x onerror=alert(1)>\"'&"  # a label that wants to act
LABELS = ["ham", "spam", NASTY, "雪 \u202eabc"]


def card(**more: Any) -> dict[str, Any]:
    """A manifest with what reports read."""
    return {
        "id": "made-up", "status": "finished", "reason": None, "started": "2026-01-01T00:00:00+00:00", "ended": None,
        "seconds": 61.5, "best": {"step": 30, "monitor": "val/loss", "value": 0.5},
        "command": "python train.py lr=1e-3", "overrides": ["lr=1e-3"],
        "config": {"name": "made", "lr": 1e-3, "data": {"task": "classification"}},
        "seeds": {"global": 0}, "model": {"path": "some/model", "parameters": 1234567, "trainable": 1000},
        "git": {"commit": "abc", "dirty": False}, "hardware": {"processor": "chip", "usable_cores": 2}, "sessions": [],
        "packages": {"torch": "2.13"},
    } | more  # fmt: skip


def curves(folder: RunDirectory, rows: Sequence[Mapping[str, float]]) -> None:
    """The curves file; steps count from 0."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with folder.curves.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def learned(folder: RunDirectory, steps: int = 60) -> None:
    """Curves of a run that over-fits from step 30 on."""
    rows: list[dict[str, float]] = []
    for step in range(steps):
        row = {
            "step": step,
            "epoch": step // 20,
            "train/loss": 1 / (1 + step / 9),
            "train/lr": 1e-3 * (1 - step / steps),
        }
        row["train/grad_norm"] = 1.0 + step % 7
        if step % 10 == 9:
            row |= {"val/loss": 0.5 + abs(step + 1 - 30) / 60, "val/accuracy": 0.9 - abs(step + 1 - 30) / 100}
        rows.append(row)
    curves(folder, rows)


def labelled_run(root: Path, *, seed: int = 0, skill: float = 0.8, rows: int = 120, **more: Any) -> RunDirectory:
    """A run that classified four labels, some of whose names want to act."""
    folder, dice = RunDirectory(root), random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    found = []
    for row in range(rows):
        right = LABELS[row % len(LABELS)]
        weights = [dice.random() + (3 * skill if name == right and dice.random() < skill else 0) for name in LABELS]
        chances = {name: weight / sum(weights) for name, weight in zip(LABELS, weights, strict=True)}
        said = max(chances, key=chances.__getitem__)
        found.append(
            {"row": row, "text": f"{NASTY} {row}", "label": right, "prediction": said, "probabilities": chances}
        )
    folder.write_predictions(found)
    hits = [row["label"] == row["prediction"] for row in found]
    table = [[sum(r["label"] == a and r["prediction"] == b for r in found) for b in LABELS] for a in LABELS]
    each = [
        {"label": a, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": sum(table[at])}
        for at, a in enumerate(LABELS)
    ]
    folder.write_score_tables({"test": {"labels": LABELS, "confusion": table, "per_class": each}})
    folder.write_scores({"val/loss": 0.5, "test/accuracy": sum(hits) / rows, "test/loss": 0.6})
    folder.write_manifest(card(**more))
    learned(folder)
    return folder


def answered_run(root: Path, *, base: bool = True) -> RunDirectory:
    """A run that answered questions, the base model too."""
    folder = RunDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    before, after = [], []
    for row in range(24):
        right = row % 3 > 0
        line = {
            "row": row,
            "family": "a" if row % 2 else "b",
            "prompt": f"what is {row}?\n{NASTY}",
            "reference": f"it is {row}",
        }
        score = {"exact_match": float(right), "token_f1": 1.0 if right else 0.2, "rougeL": 1.0 if right else 0.2}
        after.append(line | {"prediction": f"it is {row if right else 'no'}"} | score)
        before.append(line | {"prediction": "", "exact_match": 0.0, "token_f1": 0.0, "rougeL": 0.0})
    if base:
        folder.write_predictions(before)
        folder.predictions.replace(folder.base_predictions)
    folder.write_predictions(after)
    groups = {name: {"rows": 12, "exact_match": 2 / 3, "token_f1": 0.7} for name in ("a", "b")}
    folder.write_score_tables(
        {
            "base": {"by_family": {name: {"rows": 12, "exact_match": 0.0} for name in "ab"}},
            "test": {"by_family": groups},
        }
    )
    folder.write_scores({"base/exact_match": 0.0, "test/exact_match": 2 / 3, "test/loss": 0.2, "val/loss": 0.5})
    folder.write_manifest(card(config={"name": "made", "data": {"task": "instruction"}}))
    learned(folder)
    return folder


def numbers_run(root: Path, rows: int = 50) -> RunDirectory:
    """A run that predicted numbers, half as far from their mean as they are."""
    folder = RunDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    targets = [float(row % 10) for row in range(rows)]
    folder.write_predictions(
        {"row": at, "text": "t", "target": y, "prediction": 4.5 + (y - 4.5) / 3} for at, y in enumerate(targets)
    )
    folder.write_scores({"test/mse": sum((y - 4.5) ** 2 for y in targets) * 4 / 9 / rows, "val/mse": 1.0})
    folder.write_manifest(
        card(config={"data": {"task": "regression"}}, best={"step": 30, "monitor": "val/mse", "value": 1.0})
    )
    return folder
