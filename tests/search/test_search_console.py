"""Output of a search on its trials, while it runs and at its end."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.search_console import (
    ProgressDisplay,
    best_trial_lines,
    outcome_counts,
    relative_path,
    remaining_seconds,
    trial_line,
)

UNIFORM = optuna.distributions.FloatDistribution(0.0, 1.0)
DOWN = [StudyDirection.MINIMIZE]


def trial(number: int, state: str, values: Any = None, curve: Any = None, **facts: Any) -> FrozenTrial:
    found = create_trial(
        state=TrialState[state],
        values=values,
        params={"lr": 0.0123456},
        distributions={"lr": UNIFORM},
        intermediate_values=curve or {},
        user_attrs=facts,
    )
    found.number = number
    return found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (trial(3, "COMPLETE", [1.5]), "trial 3: val/loss 1.5  lr=0.01235"),
        (trial(0, "COMPLETE", [1.5], origin="default"), "trial 0 (default): val/loss 1.5  lr=0.01235"),
        (trial(4, "COMPLETE", [1.5], origin="retry of 2"), "trial 4 (retry of 2): val/loss 1.5  lr=0.01235"),
        (trial(1, "PRUNED", curve={1: 3.0, 2: 2.5}), "trial 1: pruned after validation 2 at 2.5  lr=0.01235"),
        (
            trial(2, "FAIL", kind="diverged", reason="loss is nan\nmore"),
            "trial 2: failed (diverged: loss is nan)  lr=0.01235",
        ),
        (
            trial(5, "COMPLETE", [1.5], excess=[-1.0, 4.0]),
            "trial 5: val/loss 1.5  above the limit of model/parameters  lr=0.01235",
        ),
    ],
)
def test_a_line_says_where_a_trial_came_from_and_how_it_ended(given: FrozenTrial, told: str) -> None:
    assert trial_line(given, ["val/loss"], ["train/time", "model/parameters"]) == told


def test_scores_of_several_objectives_have_their_names() -> None:
    assert "val/loss 1.5  train/time 20" in trial_line(trial(0, "COMPLETE", [1.5, 20.0]), ["val/loss", "train/time"])


def test_each_end_is_told_once_and_the_best_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    watch = ProgressDisplay(4, ["val/loss"], DOWN)
    old = trial(0, "COMPLETE", [2.0], sessions=[[0.0, 60.0]])
    new = trial(1, "COMPLETE", [1.0], sessions=[[0.0, 60.0]])
    watch.update([old])
    watch.update([old, new])
    watch.update([old, new])

    told = capsys.readouterr().out
    assert told == "trial 1: val/loss 1  lr=0.01235  [2 of 4, about 2 min left]  best so far\n"


def test_several_objectives_have_a_front_and_no_best(capsys: pytest.CaptureFixture[str]) -> None:
    watch = ProgressDisplay(3, ["val/loss", "train/time"], [*DOWN, *DOWN])
    trials = [trial(0, "COMPLETE", [1.0, 9.0]), trial(1, "COMPLETE", [2.0, 3.0]), trial(2, "COMPLETE", [3.0, 4.0])]
    watch.update([])
    for count in (1, 2, 3):
        watch.update(trials[:count])

    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("on the front") and second.endswith("on the front")
    assert third.endswith("[3 of 3]") and "best" not in first + second + third


def test_the_live_table_says_what_runs_what_is_best_and_how_the_others_rank() -> None:
    watch = ProgressDisplay(5, ["val/loss"], DOWN)
    done = [trial(0, "COMPLETE", [1.5], sessions=[[0.0, 60.0]]), trial(2, "COMPLETE", [1.25], sessions=[[0.0, 60.0]])]
    running = trial(1, "RUNNING", curve={1: 3.0, 2: 2.25})

    head, best, now, titles, *rows = watch.live_lines([*done, running], 100, 40)

    assert head.startswith("search: 2 of 5 trials ended  2 complete  1 running  about 3 min left, ends about ")
    assert best == "best so far: trial 2  val/loss 1.25  lr=0.01235"
    assert now.split("  ") == ["running: trial 1", "0 s", "validation 2", "val/loss 2.25", "lr=0.01235"]
    assert titles.split() == ["rank", "trial", "val/loss", "time", "settings"]
    assert [row.split() for row in rows] == [
        ["1", "2", "1.25", "60", "s", "lr=0.01235"],
        ["2", "0", "1.5", "60", "s", "lr=0.01235"],
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("height", [5, 12, 40])
def test_the_live_table_fits_the_terminal_and_cuts_no_word(width: int, height: int) -> None:
    params = {"optimizer.weight_decay": 0.01, "regularization": "dropout", "lr": 1e-3, "batch_size": 32}
    spread = {name: optuna.distributions.CategoricalDistribution([value]) for name, value in params.items()}
    trials = []
    for number in range(12):
        made = create_trial(state=TrialState.COMPLETE, values=[1 / (number + 1)], params=params, distributions=spread)
        made.number = number
        trials.append(made)

    lines = ProgressDisplay(30, ["val/exact_match"], [StudyDirection.MAXIMIZE]).live_lines(trials, width, height)

    assert len(lines) < height and max(map(len, lines)) <= width
    words = {f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()}
    assert {word for line in lines for word in line.split() if "=" in word} <= words
    if height == 40 and width >= 60:
        assert sum("optimizer.weight_decay=0.01" in line for line in lines) == 9  # the best, and eight ranks
        assert lines[-1] == "4 more in study.json"


def test_the_time_that_is_left_knows_slots_and_what_has_run_already() -> None:
    assert remaining_seconds(4, [], 60.0, 1) == 240.0
    assert remaining_seconds(4, [30.0, 30.0], 60.0, 2) == 90.0
    assert remaining_seconds(1, [100.0], 60.0, 4) == 0.0
    assert remaining_seconds(4, [1.0], 0.0, 1) == 0.0  # nothing has ended yet, so nobody knows


def test_a_search_by_time_says_how_much_of_it_is_left() -> None:
    trials = [
        trial(0, "COMPLETE", [2.0], sessions=[[0.0, 60.0]]),
        trial(1, "COMPLETE", [1.0], sessions=[[30.0, 120.0]]),
    ]

    assert ProgressDisplay(None, ["val/loss"], DOWN, hours=0.05).progress(trials) == "2 done, about 60 s left"
    assert ProgressDisplay(None, ["val/loss"], DOWN, hours=0.01).progress(trials) == "2 done"
    assert ProgressDisplay(100, ["val/loss"], DOWN, hours=0.05).progress(trials) == "2 of 100, about 60 s left"


def test_the_end_counts_failures_by_kind_and_says_what_helps() -> None:
    trials = [
        trial(0, "COMPLETE", [1.0]),
        trial(1, "COMPLETE", [0.5], excess=[1.0]),
        trial(2, "FAIL", kind="timeout"),
        trial(3, "FAIL", kind="timeout"),
        trial(4, "FAIL", kind="no result"),
    ]

    assert outcome_counts(trials) == [
        "5 trials: 2 complete, 3 failed",
        "  1 complete above a limit of search.constraints, so never best",
        "  2 failed (timeout); search.trial_timeout=SECONDS gives each more time",
        "  1 failed (no result)",
    ]


def test_the_best_stands_beside_the_default() -> None:
    default, other = trial(0, "COMPLETE", [2.0], origin="default"), trial(1, "COMPLETE", [1.0])

    (told,) = best_trial_lines([other, default], [default, other], ["val/loss"])
    assert told == "best: trial 1, val/loss 1; the default configuration, trial 0: val/loss 2"
    (told,) = best_trial_lines([default, other], [default, other], ["val/loss"])
    assert told == "best is trial 0, the default configuration, val/loss 2: the search found nothing better"


def test_a_path_is_told_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert relative_path(tmp_path / "outputs" / "best.yaml") == "outputs/best.yaml"
    assert relative_path(tmp_path.parent / "best.yaml") == str(tmp_path.parent / "best.yaml")
