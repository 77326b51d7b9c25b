"""Counters of energy are added up, also when they start over, and silence is no zero."""

from pathlib import Path

import pytest

from tunelab.runs.resource_usage import EnergyMeter, rapl_counters


def counter(readings: list[float], turn: float) -> tuple[object, float]:
    left = iter(readings)
    return (lambda: next(left)), turn


def test_a_counter_that_starts_over_loses_nothing() -> None:
    meter = EnergyMeter([counter([90.0, 97.0, 5.0, 6.0], 100.0)], [])  # type: ignore[list-item]
    meter.start()
    meter.accumulate()
    meter.accumulate()

    assert meter.stop() == {"processor_joules": pytest.approx(7 + 8 + 1), "gpu_joules": None}


def test_several_devices_of_a_kind_are_added() -> None:
    meter = EnergyMeter([], [counter([0.0, 2.0], 0.0), counter([5.0, 8.0], 0.0)]).start()  # type: ignore[list-item]

    assert meter.stop() == {"processor_joules": None, "gpu_joules": 5.0}


def test_whole_processors_are_read_and_their_parts_are_not(tmp_path: Path) -> None:
    # Given two processors, one with a part of its own, one that may not be read
    for name, now in (("intel-rapl:0", "3000000"), ("intel-rapl:0:0", "1000000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(now)
        (tmp_path / name / "max_energy_range_uj").write_text("262143328850")
    (tmp_path / "intel-rapl:1").mkdir()

    ((read, turn),) = rapl_counters(tmp_path)

    assert (read(), turn) == (3.0, pytest.approx(262143.32885))
