"""The most memory that a run held: of it alone, and of all its sessions."""

import numpy as np
import pytest

from tunelab import peak_memory
from tunelab.peak_memory import STATUS, begin, peaks

pytestmark = pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells what a process held")
MEGABYTES = 200


def hold() -> None:
    block = np.ones(MEGABYTES * 2**17)  # 8 bytes each; written to, or they would not be resident
    assert block[-1] == 1


def test_the_peak_is_that_of_what_was_given_back_too() -> None:
    begin()
    before = peaks()["process_mb"]
    hold()
    after = peaks()["process_mb"]

    assert before is not None and after is not None
    assert after - before > 0.8 * MEGABYTES


def test_a_run_does_not_inherit_the_peak_of_the_one_before_it_in_the_same_process() -> None:
    begin()
    hold()
    held = peaks()["process_mb"]
    begin()
    fresh = peaks()["process_mb"]

    assert held is not None and fresh is not None and held - fresh > 0.8 * MEGABYTES


def test_the_largest_session_counts_and_what_nobody_knows_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "resident", lambda: 300.0)
    monkeypatch.setattr(peak_memory, "on_gpu", lambda: None)
    sessions = [{"memory": {"process_mb": 500.0, "gpu_mb": None}}, {"memory": None}, {}]

    assert peaks(sessions) == {"process_mb": 500.0, "gpu_mb": None}
    assert peaks() == {"process_mb": 300.0, "gpu_mb": None}
