"""The curves file survives crashes, new metrics and resuming."""

import csv
import math
import os
from pathlib import Path

import pytest

from tunelab.errors import ConfigError
from tunelab.tracking.csv_logger import CurveLogger, read_curve_rows


def table(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def training(logger: CurveLogger, start: int, stop: int) -> None:
    """Log as Lightning does: steps from 0, five to an epoch, validation and the epoch's mean at its last step."""
    for step in range(start, stop):
        epoch = step // 5
        logger.log_metrics({"train/loss": 1 / (step + 3), "epoch": epoch}, step)
        if step % 5 == 4:
            logger.log_metrics({"val/loss": 1 / (step + 7), "epoch": epoch}, step)
            logger.log_metrics({"train/loss_epoch": 0.5, "epoch": epoch}, step)


def test_metrics_of_one_step_share_a_row_and_keep_every_digit(tmp_path: Path) -> None:
    logger = CurveLogger(tmp_path)
    logger.log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0}, 0)
    logger.log_metrics({"val/loss": math.nan, "epoch": 0}, 0)
    assert table(tmp_path) == [
        {"step": "0", "epoch": "0", "train/loss": "0.30000000000000004", "val/loss": "nan"},
    ]


def test_a_row_is_on_disk_before_the_file_is_closed_and_a_new_metric_widens_all_rows(tmp_path: Path) -> None:
    logger = CurveLogger(tmp_path)
    logger.log_metrics({"a": 1.0, "epoch": 0}, 0)
    logger.log_metrics({"a": 2.0, "epoch": 0}, 1)
    assert [row["a"] for row in table(tmp_path)] == ["1.0", "2.0"]
    logger.log_metrics({"b, with comma": 3.0, "epoch": 0}, 2)
    assert [row["b, with comma"] for row in table(tmp_path)] == ["", "", "3.0"]
    assert [row["a"] for row in table(tmp_path)] == ["1.0", "2.0", ""]
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_the_file_goes_on_after_lightning_finalizes_it(tmp_path: Path) -> None:
    logger = CurveLogger(tmp_path)
    training(logger, 0, 5)
    logger.finalize("success")
    logger.log_metrics({"test/loss": 0.25, "epoch": 1}, 5)
    rows = table(tmp_path)
    assert len(rows) == 6
    assert rows[-1]["test/loss"] == "0.25"


@pytest.mark.parametrize("killed_after", [7, 8, 9, 10, 13])
@pytest.mark.parametrize("done", [5, 7])
def test_a_resumed_file_equals_the_uninterrupted_one(tmp_path: Path, done: int, killed_after: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    training(CurveLogger(whole), 0, 17)
    training(CurveLogger(broken), 0, killed_after)
    with (broken / "metrics.csv").open("a") as stream:
        stream.write("14,2,0.0")  # the crash cut this line
    training(CurveLogger(broken, resume_from_step=done), done, 17)
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_resuming_forgets_the_test_scores_of_the_first_end(tmp_path: Path) -> None:
    first = CurveLogger(tmp_path)
    training(first, 0, 5)
    first.log_metrics({"test/loss": 0.25, "epoch": 1}, 5)
    training(CurveLogger(tmp_path, resume_from_step=5), 5, 7)
    columns, rows = read_curve_rows(tmp_path / "metrics.csv")
    assert "test/loss" not in columns
    assert [row["step"] for row in rows] == [str(step) for step in range(7)]


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    training(CurveLogger(tmp_path), 0, 9)
    training(CurveLogger(tmp_path), 0, 2)
    assert len(table(tmp_path)) == 2


def test_a_crash_while_widening_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CurveLogger(tmp_path)
    training(logger, 0, 3)
    before = (tmp_path / "metrics.csv").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ConfigError, match="disk full"):
        logger.log_metrics({"new": 1.0, "epoch": 0}, 3)
    assert (tmp_path / "metrics.csv").read_bytes() == before
