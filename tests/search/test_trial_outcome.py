"""How a trial ended, by what it left and by how its process went."""

import json
from pathlib import Path

import pytest

from tunelab.search.trial_outcome import read_outcome


def left(folder: Path, status: str, value: float | None = 1.5, reason: str | None = None) -> Path:
    best = None if value is None else {"step": 1, "value": value}
    card = {"status": status, "reason": reason, "seconds": 2.0, "best": best}
    (folder / "run.json").write_text(json.dumps(card))
    (folder / "metrics.json").write_text(json.dumps({} if value is None else {"val/loss": value}))
    return folder


@pytest.mark.parametrize("status", [0, 143, 130, -15, -2, -9])
@pytest.mark.parametrize("how", ["finished", "early-stopped"])
def test_a_trial_that_a_signal_met_on_its_way_out_has_its_result(tmp_path: Path, how: str, status: int) -> None:
    found = read_outcome(left(tmp_path, how, reason="no better for long"), status, ["monitor"])

    assert (found.state, found.values) == ("complete", (1.5,))


@pytest.mark.parametrize(
    ("how", "status", "kind"),
    [
        ("running", 143, "preempted"),
        ("pre-empted", 143, "preempted"),
        ("running", -9, "killed"),
        ("failed", 1, "error"),
    ],
)
def test_one_that_a_signal_met_before_has_none(tmp_path: Path, how: str, status: int, kind: str) -> None:
    found = read_outcome(left(tmp_path, how, None), status, ["monitor"])

    assert (found.state, found.failure_kind, found.values) == ("failed", kind, ())


def test_a_status_of_0_alone_proves_nothing(tmp_path: Path) -> None:
    assert read_outcome(tmp_path, 0, ["monitor"]).failure_kind == "no result"
    assert read_outcome(left(tmp_path, "finished", float("nan")), 0, ["monitor"]).failure_kind == "no result"
