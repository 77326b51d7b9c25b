"""Scores on a file: those of training's own test pass, to the last digit."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.tiny_runs import write
from tunelab.runs.run_dir import RunDirectory


def test_file(run: RunDirectory) -> Path:
    return Path(run.read_manifest()["config"]["data"]["test"])


test_file.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["instruction", "classification", "multilabel", "regression", "adapted"])
def test_the_test_file_gives_the_scores_that_training_gave(
    kind: str, request: pytest.FixtureRequest, tunelab: Any, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)

    status, out, err = tunelab("evaluate", run.root, "--data", test_file(run), "--output", tmp_path / "scores.json")

    assert status == 0, err
    found = json.loads((tmp_path / "scores.json").read_text())
    wanted = {
        name.removeprefix("test/"): value for name, value in run.read_scores().items() if name.startswith("test/")
    }
    assert found["scores"] == wanted
    assert len(wanted) > 4
    assert found["tables"] == run.read_score_tables()["test"]
    assert "the run used this very file for" in out and "its test scores" in out


def test_other_rows_give_other_scores(classification: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    # Given a file whose every label is what the model does not say
    file = write(tmp_path / "in.jsonl", [{"text": f"red {i}"} for i in range(6)])
    assert tunelab("predict", classification.root, "--input", file, "--output", tmp_path / "out.jsonl")[0] == 0
    said = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    labels = sorted(classification.read_score_tables()["test"]["labels"])
    wrong = [{"text": f"red {i}", "label": next(x for x in labels if x != said[i])} for i in range(6)]
    right = [{"text": f"red {i}", "label": said[i]} for i in range(6)]

    for rows, accuracy in ((wrong, 0.0), (right, 1.0)):
        file = write(tmp_path / "judged.jsonl", rows)
        status, _, err = tunelab("evaluate", classification.root, "--data", file, "--output", tmp_path / "s.json")
        assert status == 0, err
        assert json.loads((tmp_path / "s.json").read_text())["scores"]["accuracy"] == accuracy


def test_looks_at_a_file_are_counted(classification: RunDirectory, tunelab: Any, tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"text": "red 7", "label": "red"}])
    two = write(tmp_path / "two.jsonl", [{"text": "red 8", "label": "red"}])

    told = [tunelab("evaluate", classification.root, "--data", file)[1] for file in (one, two, one)]

    assert ["evaluation 1 of" in text for text in told] == [True, True, False]
    assert "evaluation 2 of" in told[2]
    assert not any("very file" in text for text in told)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"text": "red"}], "no column 'label'"),
        ([{"text": "red", "label": "purple"}], "'purple' never occurs"),
    ],
)
def test_rows_that_cannot_be_scored_are_named(
    rows: list[dict[str, Any]], told: str, classification: RunDirectory, tunelab: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "in.jsonl", rows)

    status, _, err = tunelab("evaluate", classification.root, "--data", file)

    assert status == 2 and "in.jsonl line 1" in err and told in err


def test_a_place_without_a_run_is_refused(tunelab: Any, tmp_path: Path) -> None:
    status, _, err = tunelab("evaluate", tmp_path, "--data", "a.csv")

    assert status == 2 and "no run.json" in err
