"""How long a study has been searched, over every command and every engine; pauses in between do not count."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

Interval = tuple[float, float]  # seconds since the epoch


def intervals(trials: Sequence[FrozenTrial], now: float, watched: Callable[[FrozenTrial], bool]) -> list[Interval]:
    """When trials were at work.

    Args:
        trials: Every trial of the study.
        now: The time.
        watched: Whether a running trial has a living engine; one that was left behind is not at work.
    """
    found = [(float(a), float(b)) for trial in trials for a, b in trial.user_attrs.get("sessions", [])]
    at_work = [t for t in trials if t.state is TrialState.RUNNING and "began" in t.user_attrs and watched(t)]
    return found + [(float(trial.user_attrs["began"]), now) for trial in at_work]


def covered(spans: Iterable[Interval]) -> float:
    """Seconds in which at least one interval was open.

    Example:
        >>> covered([(0, 10), (5, 12), (20, 21)])
        13.0
    """
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def typical(trials: Sequence[FrozenTrial]) -> float:
    """Seconds of the middle finished trial; 0 before there is one."""
    lengths = [
        sum(float(b) - float(a) for a, b in trial.user_attrs["sessions"])
        for trial in trials
        if trial.state.is_finished() and "sessions" in trial.user_attrs
    ]
    return statistics.median(lengths) if lengths else 0.0
