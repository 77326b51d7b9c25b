"""Predictions for a file: the same as training's own, whole, in order, and never lost."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.tiny_runs import write
from tunelab.cli import predict_command
from tunelab.generation import prediction
from tunelab.runs.run_dir import RunDirectory

KINDS = ["instruction", "classification", "multilabel", "regression"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def learned_from(run: RunDirectory) -> Path:
    return Path(run.read_manifest()["config"]["data"]["train"])


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_those_of_the_run_s_own_test_pass(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    file = learned_from(run)

    status, out, _ = tunelab("predict", run.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 0, out
    given, found, known = rows_of(file), rows_of(tmp_path / "out.jsonl"), run.read_predictions()
    assert len(found) == len(given) == len(known)
    for asked, answer, wanted in zip(given, found, known, strict=True):
        assert {name: answer[name] for name in asked} == asked
        if kind == "regression":
            assert answer["prediction"] == pytest.approx(wanted["prediction"], rel=1e-5)
        else:
            assert answer["prediction"] == wanted["prediction"]
        if "probabilities" in wanted:
            assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
    if kind == "regression":
        assert all(900 < answer["prediction"] < 1100 for answer in found), "in the user's own units"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_and_answers_need_not_be_there(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    asked = ("text", "instruction", "input")
    bare = [{name: row[name] for name in asked if name in row} for row in rows_of(learned_from(run))]
    file = write(tmp_path / "bare.jsonl", bare)

    status, out, err = tunelab("predict", run.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 0, out + err
    assert (
        [row["prediction"] for row in rows_of(tmp_path / "out.jsonl")]
        == pytest.approx([row["prediction"] for row in run.read_predictions()], rel=1e-5)
        if kind == "regression"
        else [row["prediction"] for row in run.read_predictions()]
    )


def test_a_run_is_used_where_its_training_data_is_gone(
    classification: RunDirectory, tunelab: Any, tmp_path: Path, place: Path
) -> None:
    away = place / "labelled.jsonl"
    file = tmp_path / "here.jsonl"
    file.write_bytes(away.read_bytes())
    away.rename(place / "elsewhere.jsonl")
    try:
        status, _, err = tunelab("predict", classification.root, "--input", file, "--output", tmp_path / "out.jsonl")
    finally:
        (place / "elsewhere.jsonl").rename(away)

    assert status == 0, err
    known = [row["prediction"] for row in classification.read_predictions()]
    assert [row["prediction"] for row in rows_of(tmp_path / "out.jsonl")] == known


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_checkpoints_answers_by_its_export(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    run.checkpoints.rename(tmp_path / "away")
    try:
        status, out, err = tunelab(
            "predict", run.root, "--input", learned_from(run), "--output", tmp_path / "out.jsonl"
        )
    finally:
        (tmp_path / "away").rename(run.checkpoints)

    assert status == 0, err
    assert "taken from" in out and "best.ckpt" in out
    found, known = rows_of(tmp_path / "out.jsonl"), run.read_predictions()
    for answer, wanted in zip(found, known, strict=True):
        same = pytest.approx(wanted["prediction"], rel=1e-4) if kind == "regression" else wanted["prediction"]
        assert answer["prediction"] == same


def test_csv_comes_in_and_goes_out_with_every_cell_as_it_was(
    classification: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    texts = ["red, with a comma", 'blue "quoted"', "green\nin two lines", "plain"]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([f"00{i}", text] for i, text in enumerate(texts))])

    status, _, err = tunelab(
        "predict", classification.root, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"
    )

    assert status == 0, err
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["id"], row["text"]) for row in found] == [(f"00{i}", text) for i, text in enumerate(texts)]
    for row in found:
        probabilities = json.loads(row["probabilities"])
        assert row["prediction"] == max(probabilities, key=probabilities.__getitem__)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_a_row_that_cannot_be_used_says_why_and_spoils_no_other(
    classification: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"text": "red 1"}, {"text": " "}, {"other": "x"}, {"text": "blue 2"}]
    file = write(tmp_path / "in.jsonl", rows)

    status, out, _ = tunelab("predict", classification.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 0
    found = rows_of(tmp_path / "out.jsonl")
    assert [row["prediction"] is None for row in found] == [False, True, True, False]
    assert "no text" in found[1]["error"] and "no column 'text'" in found[2]["error"]
    assert "error" not in found[0]
    assert "2 rows could not be used" in out and "in.jsonl line 2" in out


def test_a_question_longer_than_the_model_reads_is_an_error_of_its_row(
    instruction: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", [{"instruction": "say red"}, {"instruction": "say red " * 300}])

    status, _, _ = tunelab("predict", instruction.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 0
    first, second = rows_of(tmp_path / "out.jsonl")
    assert isinstance(first["prediction"], str) and second["prediction"] is None
    assert "the limit with its answer is 128" in second["error"]


def test_an_input_without_one_usable_row_is_refused_and_leaves_nothing(
    classification: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", [{"words": "red"}, {"words": "blue"}])

    status, _, err = tunelab("predict", classification.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 2
    assert "none of 2 rows" in err and "no column 'text'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_other_layouts_of_a_question_are_understood(instruction: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "say red"}]
    answered = [*said, {"role": "assistant", "content": "something"}]
    rows: list[dict[str, Any]] = [
        {"instruction": "say red"},
        {"prompt": "say red"},
        {"messages": said},
        {"messages": answered},
        {"conversations": [{"from": "human", "value": "say red"}]},
    ]
    file = write(tmp_path / "in.jsonl", rows)

    status, _, err = tunelab("predict", instruction.root, "--input", file, "--output", tmp_path / "out.jsonl")

    assert status == 0, err
    assert len({row["prediction"] for row in rows_of(tmp_path / "out.jsonl")}) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--output", "out.txt"], "end it in .jsonl or .csv"),
        (["--output", "nowhere/out.csv"], "there is no folder nowhere"),
        (["--output", "there.csv"], "--overwrite"),
        (["--output", "out.csv", "--batch-tokens", "-1"], "--batch-tokens=-1 is out of range"),
        (["--output", "out.csv", "--max-new-tokens", "3"], "leave it out"),
        (["--output", "out.csv", "--input", "missing.jsonl"], "missing.jsonl"),
        (["--output", "out.csv", "--input", "taken.jsonl"], "column prediction already"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    given: list[str],
    told: str,
    classification: RunDirectory,
    tunelab: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("kept")
    write(Path("in.jsonl"), [{"text": "red"}])
    write(Path("taken.jsonl"), [{"text": "red", "prediction": "x"}])

    status, _, err = tunelab("predict", classification.root, "--input", "in.jsonl", *given)

    assert status == 2 and told in err
    assert Path("there.csv").read_text() == "kept"
    assert not Path("out.csv").exists()


def test_a_folder_that_is_no_run_is_told_with_what_was_looked_for(tunelab: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, told in (("empty", "no run.json"), ("nothing", "no such folder")):
        status, _, err = tunelab("predict", tmp_path / place, "--input", "a.csv", "--output", tmp_path / "out.csv")
        assert status == 2 and told in err


@pytest.mark.slow
def test_a_killed_prediction_goes_on_without_losing_or_doubling_a_row(
    instruction: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    # Given a process that is killed while it answers
    rows = [{"id": i, "instruction": f"say {i} {'red ' * (i % 9)}"} for i in range(1200)]
    file = write(tmp_path / "in.jsonl", rows)
    target, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    words = ["predict", str(instruction.root), "--input", str(file), "--output", str(target), "--max-new-tokens", "30"]
    start = [sys.executable, "-c", "from tunelab.cli.main import main; main()"]
    process = subprocess.Popen([*start, *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 500
    while (not part.exists() or part.read_bytes().count(b"\n") < 2) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    done = part.read_bytes().count(b"\n") - 1
    assert 0 < done < len(rows)
    with part.open("ab") as torn:
        torn.write(b'{"prediction": "half a li')

    # When it is started again
    status, out, err = tunelab(*words)

    # Then every row is there once, as in a run that nobody killed
    assert status == 0, err
    assert f"continuing after row {done} of 1200" in out
    found = rows_of(target)
    assert [row["id"] for row in found] == list(range(1200))
    assert tunelab(*words, "--overwrite")[0] == 0
    assert rows_of(target) == found
    assert not part.exists()


def test_half_made_answers_to_another_question_are_not_mixed_in(
    classification: RunDirectory, tunelab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a prediction that failed after its first window
    monkeypatch.setattr(prediction, "WINDOW_ROWS", 10)
    file = write(tmp_path / "in.jsonl", [{"text": f"red {i}"} for i in range(30)])
    words = ("predict", classification.root, "--input", file, "--output", tmp_path / "out.jsonl")
    real, calls = prediction.predict_window, iter(range(9))
    monkeypatch.setattr(prediction, "predict_window", lambda *given: real(*given) if next(calls) < 1 else 1 / 0)
    assert tunelab(*words)[0] == 1
    monkeypatch.setattr(prediction, "predict_window", real)
    before = (tmp_path / "out.jsonl.partial").read_bytes()

    # When the input has changed since
    write(file, [{"text": f"blue {i}"} for i in range(30)])
    status, _, err = tunelab(*words)

    # Then it is refused, and nothing is lost
    assert status == 2 and "10 answers that belong to another input" in err
    assert (tmp_path / "out.jsonl.partial").read_bytes() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_every_column_that_the_output_adds_is_named_in_the_help() -> None:
    for name in ("prediction", "probabilities", "agreement", "error"):
        assert f"\n  {name}" in predict_command.EPILOG
