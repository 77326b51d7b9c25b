"""The most memory that a run held: of it alone, and of all its sessions."""

import numpy as np
import pytest

from tunelab.runs import resource_usage
from tunelab.runs.resource_usage import PROC_STATUS, measure_peak_memory, reset_peak_memory

pytestmark = pytest.mark.skipif(not PROC_STATUS.is_file(), reason="only Linux tells what a process held")
MEGABYTES = 200


def hold() -> None:
    block = np.ones(MEGABYTES * 2**17)  # 8 bytes each; written to, or they would not be resident
    assert block[-1] == 1


def test_the_peak_is_that_of_what_was_given_back_too() -> None:
    reset_peak_memory()
    before = measure_peak_memory()["process_mb"]
    hold()
    after = measure_peak_memory()["process_mb"]

    assert before is not None and after is not None
    assert after - before > 0.8 * MEGABYTES


def test_a_run_does_not_inherit_the_peak_of_the_one_before_it_in_the_same_process() -> None:
    reset_peak_memory()
    hold()
    held = measure_peak_memory()["process_mb"]
    reset_peak_memory()
    fresh = measure_peak_memory()["process_mb"]

    assert held is not None and fresh is not None and held - fresh > 0.8 * MEGABYTES


def test_the_largest_session_counts_and_what_nobody_knows_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_usage, "peak_resident_mb", lambda: 300.0)
    monkeypatch.setattr(resource_usage, "peak_gpu_mb", lambda: None)
    sessions = [{"memory": {"process_mb": 500.0, "gpu_mb": None}}, {"memory": None}, {}]

    assert measure_peak_memory(sessions) == {"process_mb": 500.0, "gpu_mb": None}
    assert measure_peak_memory() == {"process_mb": 300.0, "gpu_mb": None}
