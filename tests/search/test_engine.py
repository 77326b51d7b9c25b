"""The engine against everything that goes wrong in a night, over a training that takes no time."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from support.instant_search import FORKED, engine, run
from support.paths import ROOT, SUPPORT
from tunelab.errors import TuneLabError
from tunelab.search.space import build_space
from tunelab.search.study_results import elapsed_time, work_intervals
from tunelab.search.suggest import counted_trials
from tunelab.search.trial_outcome import NEVER_STARTED
from tunelab.search.trial_process import find_process

ENGINE = [sys.executable, str(SUPPORT / "instant_search.py")]


@pytest.fixture(params=[pytest.param("new", marks=pytest.mark.slow), "forked"], autouse=True)
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "forked":
        monkeypatch.setenv(FORKED, "1")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]))


def started(root: Path) -> list[str]:
    return (root / "started.txt").read_text().splitlines()


def searched(root: Path, *fixed: str, **changes: Any) -> Any:
    made = engine(root, fixed, **changes)
    assert run(made) is True
    return made


def states(made: Any) -> Counter[str]:
    return Counter(trial.state.name for trial in made.trials())


def until(condition: Any, seconds: float = 300.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.02)


def test_every_trial_is_asked_started_and_told_once(tmp_path: Path) -> None:
    made = searched(tmp_path, trials=5, parallel_trials=2)

    assert sorted(started(tmp_path)) == [f"{number} new" for number in range(5)]
    assert states(made) == {"COMPLETE": 5}
    for trial in made.trials():
        assert trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2)


def test_the_same_command_goes_on_and_counts_what_is_there(tmp_path: Path) -> None:
    searched(tmp_path, trials=3)
    searched(tmp_path, trials=5, seed=1)
    made = searched(tmp_path, trials=5, seed=2)

    assert states(made) == {"COMPLETE": 5}
    assert len(started(tmp_path)) == 5
    assert len({trial.params["x"] for trial in made.trials()}) == 5


@pytest.mark.parametrize(
    ("act", "kind"),
    [("die", "killed"), ("diverge", "diverged"), ("memory", "memory"), ("nan", "no result"), ("silent", "no result")],
)
def test_a_failure_has_a_name_and_the_search_goes_on(tmp_path: Path, act: str, kind: str) -> None:
    made = searched(tmp_path, f"act={act}", trials=2)
    assert states(made) == {"FAIL": 2}
    assert {trial.user_attrs["kind"] for trial in made.trials()} == {kind}

    after = searched(tmp_path, trials=4, seed=1)
    assert states(after) == {"FAIL": 2, "COMPLETE": 2}


def test_a_trial_that_hangs_is_ended(tmp_path: Path) -> None:
    made = searched(tmp_path, "sleep=60", trials=1, trial_timeout=0.3)

    assert [trial.user_attrs["kind"] for trial in made.trials()] == ["timeout"]


def test_settings_that_let_no_trial_start_end_the_search(tmp_path: Path) -> None:
    made = engine(tmp_path, ["act=config"], trials=20)
    with pytest.raises(TuneLabError, match="first 3 trials could not start.*cannot run this"):
        run(made)

    assert len(made.trials()) == 3


def test_failed_trials_are_tried_anew_once_where_that_is_asked(tmp_path: Path) -> None:
    searched(tmp_path, "act=memory", trials=2)
    made = searched(tmp_path, trials=2, retry="failed")
    again = searched(tmp_path, trials=2, retry="failed")

    assert states(again) == {"FAIL": 2, "COMPLETE": 2}
    assert [trial.params for trial in made.trials()[2:]] == [trial.params for trial in made.trials()[:2]]
    assert len(counted_trials(made.trials())) == 2


def test_a_grid_is_gone_through_once_whatever_happens(tmp_path: Path) -> None:
    space = build_space({"x": "0.1,0.2", "y": [1, 2, 3]}, {}, {})
    searched(tmp_path, space=space, sampler="grid", trials=4)
    made = searched(tmp_path, space=space, sampler="grid", trials=6)
    searched(tmp_path, space=space, sampler="grid", trials=60)

    tried = [(trial.params["x"], trial.params["y"]) for trial in made.trials()]
    assert tried == [(x, y) for x in (0.1, 0.2) for y in (1, 2, 3)]


def test_a_sampler_that_repeats_itself_is_overruled(tmp_path: Path) -> None:
    space = build_space({"x": [0.1, 0.2, 0.3], "y": [1, 2]}, {}, {})
    made = searched(tmp_path, space=space, trials=50)

    tried = [(trial.params["x"], trial.params["y"]) for trial in counted_trials(made.trials())]
    assert len(tried) == len(set(tried)) == 6
    assert len(started(tmp_path)) == 6


def test_a_killed_engine_loses_no_trial(tmp_path: Path) -> None:
    first = subprocess.Popen([*ENGINE, str(tmp_path), "3", "0", "sleep=1"])
    until(lambda: (tmp_path / "started.txt").exists() and len(started(tmp_path)) == 2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    made = searched(tmp_path, trials=3, seed=1)

    assert states(made) == {"COMPLETE": 3}
    assert sorted(started(tmp_path)) == ["0 new", "1 new", "2 new"]  # the two at work were watched to their end


def test_a_trial_that_died_with_its_engine_goes_on_from_what_it_left(tmp_path: Path) -> None:
    first = subprocess.Popen([*ENGINE, str(tmp_path), "1", "0", "sleep=30"], start_new_session=True)
    until((tmp_path / "0" / "run.json").exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    subprocess.run(["pkill", "-KILL", "-f", f"hydra.run.dir={tmp_path}/0"], check=True)
    until(lambda: find_process(tmp_path / "0") is None)  # else it is watched as it dies, and counts as killed
    (tmp_path / "0" / "config.json").write_text('{"x": "0.3"}')  # so that it does not sleep again
    made = searched(tmp_path, trials=1)

    assert states(made) == {"COMPLETE": 1}
    assert started(tmp_path) == ["0 new", "0 resumed"]


def test_a_stopped_engine_leaves_trials_to_go_on_with(tmp_path: Path) -> None:
    made = engine(tmp_path, ["sleep=30"], trials=2, parallel_trials=2)

    def stop_when_both_train(found: Any) -> None:
        if len(found.pool.running) == 2:
            until(lambda: (tmp_path / "started.txt").exists() and len(started(tmp_path)) == 2)
            found.stop()

    made.on_change = stop_when_both_train
    assert run(made) is False
    assert states(made) == {"RUNNING": 2}

    for number in (0, 1):
        (tmp_path / str(number) / "config.json").write_text('{"x": "0.3"}')  # so that they do not sleep again
    after = searched(tmp_path, trials=2)
    assert states(after) == {"COMPLETE": 2}
    assert sorted(started(tmp_path)) == ["0 new", "0 resumed", "1 new", "1 resumed"]


def test_four_engines_started_in_the_same_second_share_one_study(tmp_path: Path) -> None:
    engines = [subprocess.Popen([*ENGINE, str(tmp_path), "12", str(seed), "sleep=0.1"]) for seed in range(4)]
    assert [found.wait(timeout=500) for found in engines] == [0, 0, 0, 0]

    made = engine(tmp_path, trials=12)
    assert states(made) == {"COMPLETE": 12}
    assert sorted(int(line.split()[0]) for line in started(tmp_path)) == list(range(12))
    assert len({trial.params["x"] for trial in made.trials()}) == 12


def test_when_one_of_two_engines_dies_the_other_finishes_its_trials(tmp_path: Path) -> None:
    first, second = (
        subprocess.Popen([*ENGINE, str(tmp_path), "6", seed, "sleep=0.5"], start_new_session=True) for seed in "01"
    )
    until(lambda: (tmp_path / "started.txt").exists() and len(started(tmp_path)) >= 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait(timeout=500) == 0

    trials = engine(tmp_path, trials=6).trials()
    assert [trial.state.name for trial in counted_trials(trials)] == ["COMPLETE"] * 6
    assert len(started(tmp_path)) == 6
    asked = [trial.user_attrs["kind"] for trial in trials if trial.state.name != "COMPLETE"]
    assert asked in ([], [NEVER_STARTED])  # the engine may have died between asking for a configuration and starting it


def test_an_engine_leaves_no_sign_of_life_behind(tmp_path: Path) -> None:
    searched(tmp_path, trials=1)

    assert not list((tmp_path / "engines").iterdir())


def test_a_full_disk_ends_the_search_and_loses_no_trial(tmp_path: Path) -> None:
    made = engine(tmp_path, trials=4)
    journal = made.pool.folder.journal
    made.pool.store.storage._backend.patience = 0.2
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(found: Any) -> None:
        if len(started(tmp_path) if (tmp_path / "started.txt").exists() else ()) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 10, hard))

    made.on_change = fill_the_disk
    try:
        with pytest.raises(TuneLabError, match="No trial is lost"):
            run(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = searched(tmp_path, trials=4, seed=1)

    assert states(after) == {"COMPLETE": 4}
    assert len({trial.params["x"] for trial in after.trials()}) == 4


def test_time_between_commands_and_time_side_by_side_do_not_count_twice(tmp_path: Path) -> None:
    made = searched(tmp_path, "sleep=1", trials=2, parallel_trials=2)
    time.sleep(1)
    again = searched(tmp_path, "sleep=0.5", trials=3, seed=1)

    spent = elapsed_time(work_intervals(again.trials(), time.time(), lambda trial: True))
    assert 1.5 <= spent < sum(b - a for t in again.trials() for a, b in t.user_attrs["sessions"])
    assert len(made.trials()) == 3


def test_a_trial_waits_for_the_disk_a_few_times_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(os, "fsync", waits.append)
    made = engine(tmp_path, trials=3)
    waits.clear()
    assert run(made)

    assert 0 < len(waits) <= 3 * 3  # asked and claimed, started, ended
