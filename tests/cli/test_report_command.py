"""`tunelab report` on folders that trainings really left."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tunelab.runs.run_dir import RunDirectory

Talk = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "instruction"])
def test_a_report_is_made_of_a_run_of_every_kind(
    tunelab: Talk, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    run: RunDirectory = request.getfixturevalue(kind)

    status, said, complained = tunelab("report", run.root, "--output", tmp_path / "out")

    page, text = (tmp_path / "out" / "report.html").read_text(), (tmp_path / "out" / "report.md").read_text()
    assert (status, complained) == (0, "")
    assert f"{tmp_path}/out/report.html" in said
    assert "cannot be told" not in text and "is missing" not in text
    for title in ("Verdict", "Curves", "Scores", "Worst errors", "Data", "Provenance"):
        assert f"## {title}" in text
    assert len(page) < 1_000_000


def test_worst_errors_show_the_text(tunelab: Talk, classification: RunDirectory, tmp_path: Path) -> None:
    tunelab("report", classification.root, "--output", tmp_path)

    rows = classification.read_predictions()
    lines = (tmp_path / "worst_errors.csv").read_text().splitlines()[1:]
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    assert len(lines) == min(50, len(wrong))
    assert all(any(row["text"] in line for row in wrong) for line in lines)


def test_without_an_output_the_report_lies_in_the_run(tunelab: Talk, regression: RunDirectory) -> None:
    assert tunelab("report", regression.root)[0] == 0

    assert (regression.root / "report" / "report.html").is_file()


def test_what_is_no_run_is_refused_with_exit_status_2(tunelab: Talk, tmp_path: Path) -> None:
    status, _, complained = tunelab("report", tmp_path, tmp_path / "nothing")

    assert status == 2
    assert "is neither a run" in complained and "nothing does not exist" in complained
    assert "Traceback" not in complained
