"""A stream of labels, numbers, pairs of texts, choices or preferences: exact in its steps and when it resumes."""

import csv
import gc
import json
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from support.resumed_runs import Watch, again, other_weights, stopped_and_resumed, whole
from support.tiny_runs import MODEL, QUIET, WORDS, settings, write
from tunelab.data import row_streams
from tunelab.errors import ConfigError, DataError
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_components, build_datamodule
from tunelab.training.run import fine_tune

Row = dict[str, Any]
TASKS: dict[str, tuple[Callable[[int], Row], list[str]]] = {
    "labels": (
        lambda i: {"text": f"{WORDS[i % 10]} {i}", "label": WORDS[i % 3]},
        ["data=classification", "data.text=text", "data.label=label"],
    ),
    "several labels": (
        lambda i: {"text": f"{WORDS[i % 10]} {i}", "label": [WORDS[k] for k in range(3) if (i >> k) & 1]},
        ["data=classification", "data.text=text", "data.label=label", "data.multilabel=true"],
    ),
    "labels of pairs": (
        lambda i: {"text": f"{WORDS[i % 10]} {i}", "other": WORDS[i % 4], "label": WORDS[i % 3]},
        ["data=classification", "data.text=text", "data.text_pair=other", "data.label=label"],
    ),
    "numbers": (
        lambda i: {"text": f"{WORDS[i % 10]} {i}", "number": 3.0 * (i % 5) - 40},
        ["data=regression", "data.text=text", "data.target=number"],
    ),
    "choices": (
        lambda i: {"instruction": f"which {i}?", "choices": [WORDS[i % 3], WORDS[3 + i % 3]], "output": WORDS[i % 3]},
        ["data=instruction"],
    ),
    "preferences": (
        lambda i: {"prompt": f"say {i}", "chosen": " ".join(WORDS[: i % 4 + 1]), "rejected": WORDS[9 - i % 5]},
        ["data=preference"],
    ),
}
SLOW = {"several labels", "labels of pairs", "numbers", "choices"}
KINDS = [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in TASKS]


def given(folder: Path, kind: str, *more: str, rows: int = 40) -> list[str]:
    """Steps of six of forty rows that are shuffled eleven at a time, with dropout."""
    make, words = TASKS[kind]
    train = write(folder / "rows.jsonl", [make(i) for i in range(rows)])
    held_out = write(folder / "held_out.jsonl", [make(i) for i in range(100, 106)])
    return [
        *words, f"data.train={train}", f"data.validation={held_out}", "data.split.test=0", "data.near_duplicates=null",
        "data.streaming=true", "data.shuffle_rows=11", "max_steps=12", "batch_size=6", "micro_tokens=100", *MODEL,
        *QUIET, "regularization.dropout=0.2", "trainer.val_check_interval=5", "trainer.log_every_n_steps=1",
        "save=false", "scheduler=constant", "eval.generate=false", "lr=1e-3", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_stream_of_any_task_is_bit_equal_to_one_that_went_through(kind: str, tmp_path: Path) -> None:
    words = given(tmp_path, kind)
    watch, one = whole(tmp_path, words)

    # When it is stopped inside the first pass, at its end and behind it
    seen, other = stopped_and_resumed(tmp_path, words, [Watch(1), Watch(5), Watch(9)])

    assert seen == watch.seen and len([entry for entry in seen if entry[0] != "val"]) == 12
    assert not other_weights(one, other)
    counts = [RunDirectory(folder).read_manifest()["data"]["stream"] for folder in (one, other)]
    assert counts[0] == counts[1] and counts[0]["kept"] == 73 and counts[0]["passes"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_steps_of_all_rows_cost_what_they_cost_without_a_stream(kind: str, tmp_path: Path) -> None:
    words = given(tmp_path, kind, "batch_size=40", "data.shuffle_rows=40", "max_steps=3", "regularization.dropout=0")
    words.append("trainer.val_check_interval=1")
    losses = []
    for streaming in ("true", "false"):
        watch = Watch()
        fine_tune(settings(*words, f"data.streaming={streaming}"), tmp_path / streaming, callbacks=[watch])
        losses.append([entry[2] for entry in watch.seen if entry[0] != "val"])
        losses[-1] += [entry[1] for entry in watch.seen if entry[0] == "val"]

    assert losses[0] == pytest.approx(losses[1], rel=2e-5)
    if kind == "preferences":
        assert losses[0][0] == pytest.approx(
            0.6931472, abs=1e-6
        )  # the model is its own reference before the first step


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "preferences"])
def test_two_processes_take_the_steps_of_one(kind: str, tmp_path: Path) -> None:
    words = given(tmp_path, kind, "data.shuffle_rows=7", "max_steps=9", "regularization.dropout=0", rows=23)
    losses = []
    for place, trainer in enumerate((["trainer=cpu"], ["trainer=ddp_cpu", "trainer.devices=2"])):
        folder = tmp_path / str(place)
        command = [sys.executable, "train.py", *words, *trainer, f"hydra.run.dir={folder}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        rows = list(csv.DictReader((folder / "metrics.csv").open()))
        losses.append([float(row["train/loss"]) for row in rows if row.get("train/loss")])

    assert len(losses[0]) == 9 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_label_that_comes_late_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 10)
    words = given(tmp_path, "labels", "max_steps=5", "data.shuffle_rows=30")
    rows = [TASKS["labels"][0](i) for i in range(40)]
    rows[19]["label"] = "late"
    write(tmp_path / "rows.jsonl", rows)

    with pytest.raises(DataError, match=r"rows\.jsonl line 20: label 'late' never occurs.*data\.labels=\["):
        fine_tune(settings(*words), tmp_path / "refused")

    named = [*words, f"data.labels=[{','.join([*WORDS[:3], 'late'])}]"]
    fine_tune(settings(*named), tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert saved and RunDirectory(tmp_path / "run").read_manifest()["status"] == "finished"
    with pytest.raises(DataError, match=r"line 20: label 'late' is none of data\.labels"):
        fine_tune(settings(*words, f"data.labels=[{','.join(WORDS[:3])}]"), tmp_path / "other")


def test_a_stream_that_begins_with_one_label_or_number_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 3)
    for kind, key, advice in (("labels", "label", r"data\.labels=\["), ("numbers", "number", "standardise=false")):
        words = given(tmp_path, kind, "max_steps=3")
        rows = [TASKS[kind][0](i) | {key: 1} for i in range(5)] + [TASKS[kind][0](i) for i in range(20)]
        write(tmp_path / "rows.jsonl", rows)
        with pytest.raises(DataError, match=advice):
            fine_tune(settings(*words), tmp_path / kind)


def test_what_needs_all_rows_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.class_weights=balanced: how often each label comes"):
        settings(*given(tmp_path, "labels", "data.class_weights=balanced"))
    with pytest.raises(ConfigError, match="the reference of pairs that have not come yet"):
        settings(*given(tmp_path, "preferences", "trainer=fsdp_cpu"))


def test_a_label_that_changed_behind_the_first_rows_is_noticed_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 10)
    for kind, key, value in (("labels", "label", WORDS[1]), ("numbers", "number", 7.5)):
        words = given(tmp_path, kind)
        with pytest.raises(SystemExit):
            fine_tune(settings(*words), tmp_path / kind, callbacks=[Watch(3)])
        rows = [TASKS[kind][0](i) for i in range(40)]
        rows[15][key] = value
        write(tmp_path / "rows.jsonl", rows)

        with pytest.raises(DataError, match=r"rows of rows\.jsonl behind row 11 of pass 1 are others"):
            fine_tune(again(tmp_path / kind), tmp_path / kind)


@pytest.mark.parametrize("kind", ["labels", pytest.param("preferences", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_streams, "HEAD_ROWS", 50)
    left, peaks = [], []
    for count in (300, 3000):
        words = given(tmp_path, kind, "data.shuffle_rows=50")
        rows = [TASKS[kind][0](i % 97) for i in range(count)]  # words once met are kept, up to a limit
        write(tmp_path / "rows.jsonl", rows)
        components = build_components(settings(*words))
        components.reference = None  # its passes take time, and no memory that stays
        steps: Iterator[Any] = iter(build_datamodule(components).train_dataloader())
        deque(islice(steps, 20), maxlen=0)
        gc.collect()
        tracemalloc.start()
        deque(islice(steps, count // 6 - 22), maxlen=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        gc.collect()
        left.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    assert left[1] < 1.2 * left[0] + 50_000 and max(peaks) < 1_000_000
