"""A cross-validation: one run folder for each fold, one table, the test split untouched, and going on after a stop."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from support.paths import ROOT
from support.tiny_runs import MODEL, QUIET, WORDS, config, settings, write
from tunelab.config.resume import resume_config
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.data.splits import assign_splits
from tunelab.errors import ConfigError, DataError, TuneLabError
from tunelab.runs.run_dir import RunDirectory
from tunelab.search.executors.inline import InlineExecutor
from tunelab.training.components import encode_data
from tunelab.training.cross_validation import check_same_training, cross_validate
from tunelab.training.run import fine_tune

SPLITS = ("train", "validation", "test")


def texts(folder: Path, rows: int = 90) -> Path:
    """Texts with a label, an author of a few of them each, and every ninth of them twice."""
    records: list[dict[str, Any]] = [
        {"text": f"{WORDS[i % 3]} {WORDS[i % 10]} {i}", "label": WORDS[i % 3], "number": i % 5, "author": f"a{i // 4}"}
        for i in range(rows)
    ]
    return write(folder / "texts.jsonl", [*records, *records[::9]])


def given(folder: Path, *more: str) -> list[str]:
    return [
        "data=classification", f"data.train={texts(folder)}", "data.text=text", "data.label=label", *MODEL, *QUIET,
        "batch_size=16", "max_epochs=1", "lr=3e-3", "data.split.test=0.2", "seed=3", *more,
    ]  # fmt: skip


def rows_of(*overrides: str) -> dict[str, list[dict[str, Any]]]:
    """The records of each split of a run."""
    found = encode_data(settings(*overrides)).sources.splits
    return {name: [dict(row) for row in found[name].rows] for name in SPLITS}


def train(overrides: Sequence[str], folder: Path) -> None:
    """Train as the process of a fold does."""
    words = list(overrides)
    again = any(word.startswith("resume=") for word in words)
    made = validate_config(resume_config(config(*words), words)) if again else settings(*words)
    fine_tune(made, folder, overrides=words)


def folds(made: RunConfig, root: Path, words: list[str]) -> float:
    return cross_validate(made, root, words, executor=InlineExecutor(train))


@pytest.mark.parametrize("group", ["", "author"])
def test_every_row_outside_test_is_validated_once_and_test_is_that_of_any_run(group: str, tmp_path: Path) -> None:
    words = given(tmp_path, "cv.folds=4", *([f"cv.group={group}"] if group else []))
    runs = [rows_of(*words, f"cv.fold={fold}") for fold in range(4)]
    plain = rows_of(*given(tmp_path))
    whole = Counter(row["text"] for name in SPLITS for row in plain[name])

    test = Counter(row["text"] for row in runs[0]["test"])
    assert all(Counter(row["text"] for row in run["test"]) == test for run in runs)
    if not group:
        assert test == Counter(row["text"] for row in plain["test"])
    assert sum((Counter(row["text"] for row in run["validation"]) for run in runs), Counter()) == whole - test
    for run in runs:
        parts = [{row["text"] for row in run[name]} for name in SPLITS]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])  # twins stay together
        assert len(run["train"]) + len(run["validation"]) + len(run["test"]) == sum(whole.values())
        if group:
            authors = [{row["author"] for row in run[name]} for name in SPLITS]
            assert not (authors[0] & authors[1] or authors[0] & authors[2] or authors[1] & authors[2])
    for label in WORDS[:3]:
        held = [sum(row["label"] == label for row in run["validation"]) for run in runs]
        assert max(held) - min(held) <= (4 if group else 2)


def test_the_test_rows_are_drawn_by_the_hash_of_their_group(tmp_path: Path) -> None:
    run = rows_of(*given(tmp_path, "cv.folds=3", "cv.group=author", "cv.fold=1"))
    authors = [row["author"] for name in SPLITS for row in run[name]]
    sides = dict(zip(authors, assign_splits(authors, validation=0, test=0.2, seed=3), strict=True))

    assert {row["author"] for row in run["test"]} == {author for author, side in sides.items() if side == "test"}


def test_files_of_their_own_keep_test_and_give_validation_to_the_folds(tmp_path: Path) -> None:
    rows = [{"text": f"{WORDS[i % 2]} {i}", "label": WORDS[i % 2]} for i in range(40)]
    files = [write(tmp_path / f"{name}.jsonl", part) for name, part in zip(SPLITS, (rows[:20], rows[20:30], rows[30:]))]  # noqa: B905
    words = given(tmp_path, *(f"data.{name}={file}" for name, file in zip(SPLITS, files, strict=True)), "cv.folds=5")
    runs = [rows_of(*words, f"cv.fold={fold}") for fold in range(5)]

    assert all(run["test"] == rows[30:] for run in runs)
    assert sorted(row["text"] for run in runs for row in run["validation"]) == sorted(row["text"] for row in rows[:30])


def test_a_missing_column_of_groups_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"cv.group=writer: no value there; the columns are text, label, number, author"
    ):
        rows_of(*given(tmp_path, "cv.folds=3", "cv.fold=0", "cv.group=writer"))


def test_numbers_have_plain_folds(tmp_path: Path) -> None:
    named = {"data=classification": "data=regression", "data.label=label": "data.target=number"}
    words = [named.get(word, word) for word in given(tmp_path, "cv.folds=3")]
    sizes = [len(rows_of(*words, f"cv.fold={fold}")["validation"]) for fold in range(3)]

    assert max(sizes) - min(sizes) <= 2  # equal texts stay together


def test_the_table_is_that_of_the_folds_and_no_fold_scored_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, root = given(tmp_path, "cv.folds=3"), tmp_path / "cv"

    mean = folds(settings(*words), root, words)

    scores = [RunDirectory(root / f"fold_{fold}").read_scores() for fold in range(3)]
    values = [found["val/f1"] for found in scores]
    told = json.loads((root / "cv.json").read_text())
    assert mean == pytest.approx(fmean(values)) == told["mean"] == told["scores"]["val/f1"]["mean"]
    assert told["std"] == pytest.approx(stdev(values)) and told["scores"]["val/f1"]["folds"] == values
    assert not any(name.startswith(("test/", "base/")) for found in scores for name in found)
    assert not any((root / f"fold_{fold}" / "predictions.jsonl").exists() for fold in range(3))
    assert told["test_rows"] == len(rows_of(*words, "cv.fold=0")["test"]) > 0
    with (root / "cv.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["fold"] for line in lines] == ["0", "1", "2", "mean", "std"]
    assert float(lines[3]["val/loss"]) == pytest.approx(fmean(found["val/loss"] for found in scores))
    assert sum(int(line["validation_rows"]) for line in lines[:3]) == int(lines[0]["validation_rows"]) + int(
        lines[0]["train_rows"]
    )
    shown = capsys.readouterr().out
    assert re.search(r"score +mean +std +min +max +fold 0 +fold 1 +fold 2\n", shown)
    assert f"val/f1 {mean:.4g} ±" in shown and "that no fold trained on" in shown

    # When the same command comes again, nothing is trained and the table is shown again
    before = (root / "fold_0" / "run.json").read_bytes()
    assert folds(settings(*words), root, words) == mean
    assert (root / "fold_0" / "run.json").read_bytes() == before

    # When settings or data are others, they are not mixed
    with pytest.raises(ConfigError, match=r"lr=0.01 was 0.003"):
        folds(settings(*words, "lr=0.01"), root, [*words, "lr=0.01"])
    texts(tmp_path, rows=91)
    with pytest.raises(ConfigError, match=r"texts.jsonl has changed"):
        folds(settings(*words), root, words)


def test_a_failed_fold_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words, root = given(tmp_path, "cv.folds=2"), tmp_path / "cv"
    seen: list[Path] = []

    def broken(overrides: Sequence[str], folder: Path) -> None:
        if folder.name == "fold_1" and not seen:
            seen.append(folder)
            raise TuneLabError("the lights went out")
        train(overrides, folder)

    with pytest.raises(TuneLabError, match=r"(?s)fold 1 failed.*the lights went out.*the same command goes on"):
        cross_validate(settings(*words), root, words, executor=InlineExecutor(broken))
    assert not (root / "cv.json").exists()
    done = (root / "fold_0" / "run.json").read_bytes()

    cross_validate(settings(*words), root, words, executor=InlineExecutor(broken))

    assert (root / "cv.json").exists() and (root / "fold_0" / "run.json").read_bytes() == done


@pytest.mark.slow  # processes that import everything
def test_the_command_is_stopped_and_goes_on_by_itself(tmp_path: Path) -> None:
    words = [*given(tmp_path, "cv.folds=2", "max_epochs=60", "callbacks.early_stopping=false"), "name=stopped"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 500
    while not list(tmp_path.glob("outputs/stopped/cv_*/fold_1/checkpoints/best.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=500)[0]
    assert process.returncode == 143 and f"continue with: python {ROOT / 'train.py'} " in told
    [root] = tmp_path.glob("outputs/stopped/cv_*")
    assert RunDirectory(root / "fold_1").read_manifest()["status"] == "pre-empted"
    first = (root / "fold_0" / "run.json").read_bytes()

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)

    assert again.returncode == 0, again.stderr[-2000:]
    assert (root / "fold_0" / "run.json").read_bytes() == first
    card = RunDirectory(root / "fold_1").read_manifest()
    assert card["status"] == "finished" and [earlier["status"] for earlier in card["sessions"]] == ["pre-empted"]
    assert json.loads((root / "cv.json").read_text())["folds"] == 2


def test_a_fold_that_was_recorded_under_old_names_is_the_same_training(tmp_path: Path) -> None:
    # Given a fold whose manifest has the names of before and lacks a key that is new since then
    now = settings(*given(tmp_path)).as_dict()
    recorded = json.loads(json.dumps(now))
    recorded["own_lr"] = recorded.pop("default_lr")
    recorded["scheduler"]["floor"] = recorded["scheduler"].pop("min_lr_ratio")
    recorded["scheduler"]["_target_"] = "tunelab.optim.schedule.cosine"
    del recorded["trainer"]["detect_anomaly"]
    manifest = tmp_path / "fold" / "run.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"config": recorded}))

    # Then it is gone on with, unless a setting differs
    check_same_training(RunDirectory(tmp_path / "fold"), now)
    with pytest.raises(ConfigError, match="lr=0.5 was"):
        check_same_training(RunDirectory(tmp_path / "fold"), {**now, "lr": 0.5})
