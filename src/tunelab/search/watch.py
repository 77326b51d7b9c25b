"""What a search says while it runs: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tunelab import console
from tunelab.search.ledger import WORDS, ranked
from tunelab.search.proposals import counted
from tunelab.search.sentences import clock, sentence, settings, values
from tunelab.search.spent import covered, intervals, typical

SHOWN = 8  # trials of the live table, beside those that run
REFRESH = 2.0  # seconds between two drawings


class Watch:
    """Follows a search.

    Args:
        wanted: Trials that the study shall hold; None if nobody knows.
        objectives: Names of the scores.
        directions: Which way each is better.
        limits: Names of the scores that must stay below a limit.
        slots: Trials that run at a time.
        hours: Time after which no trial starts; None for no limit.
    """

    def __init__(
        self,
        wanted: int | None,
        objectives: Sequence[str],
        directions: Sequence[StudyDirection],
        limits: Sequence[str] = (),
        slots: int = 1,
        hours: float | None = None,
    ) -> None:
        self.wanted, self.directions, self.slots = wanted, directions, slots
        self.objectives, self.limits, self.hours = objectives, limits, hours
        self.told: set[int] | None = None
        self.drawn = float("-inf")
        # the stream of now: a training in this process has its own, and the table must not end up in its log
        terminal = Console(file=sys.stdout) if console.is_terminal() else None
        self.live = Live(console=terminal, refresh_per_second=2, transient=True) if terminal is not None else None

    def __enter__(self) -> "Watch":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.live is not None:
            self.live.console.print(text, markup=False, highlight=False)
        else:
            console.say(text)

    def look(self, trials: Callable[[], Sequence[FrozenTrial]]) -> None:
        """Draw the scores of the running trials anew, where somebody watches and it is time."""
        if self.live is not None and time.monotonic() - self.drawn > REFRESH:
            self._draw(trials())

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Tell of the trials that have ended since the last call, and draw the table."""
        ended = [trial for trial in counted(trials) if trial.state.is_finished()]
        if self.told is None:  # what earlier commands found was told then
            self.told = {trial.number for trial in ended}
        for trial in ended:
            if trial.number not in self.told:
                self.told.add(trial.number)
                found = sentence(trial, self.objectives, self.limits)
                self.say(f"{found}  [{self.progress(trials)}]{self._mark(trial, ended)}")
        if self.live is not None:
            self._draw(trials)

    def progress(self, trials: Sequence[FrozenTrial]) -> str:
        """How far the search is, and how long it may take."""
        ended = [trial for trial in counted(trials) if trial.state.is_finished()]
        done = f"{len(ended)} done" if self.wanted is None else f"{len(ended)} of {self.wanted}"
        known = list[float]()
        if self.wanted is not None:
            ages = [elapsed(trial) for trial in trials if trial.state is TrialState.RUNNING]
            known.append(remaining(self.wanted - len(ended), ages, typical(ended), self.slots))
        if self.hours is not None:
            known.append(3600 * self.hours - covered(intervals(trials, time.time(), lambda trial: True)))
        seconds = min(known, default=0.0)
        return done + (f", about {clock(seconds)} left" if seconds > 0 else "")

    def table(self, trials: Sequence[FrozenTrial]) -> Table:
        """The running trials, then the best ones."""
        best = ranked(trials, self.directions)
        states = Counter(WORDS.get(trial.state, trial.state.name.lower()) for trial in counted(trials))
        counts = ", ".join(f"{count} {word}" for word, count in states.items())
        title = f"{self.progress(trials)}: {counts}" if counts else self.progress(trials)
        grid = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "state", "checks", " ".join(self.objectives), "time", "settings"):
            grid.add_column(name, overflow="fold", no_wrap=name in ("trial", "time"))
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        for trial in [*running, *best[:SHOWN]]:
            curve = trial.intermediate_values
            score = values(trial.values) if trial.values is not None else values(list(curve.values())[-1:])
            state, checks = WORDS.get(trial.state, "running"), str(len(curve) or "")
            grid.add_row(str(trial.number), state, checks, score, clock(elapsed(trial)), settings(trial.params))
        return grid

    def _draw(self, trials: Sequence[FrozenTrial]) -> None:
        assert self.live is not None
        self.drawn = time.monotonic()
        self.live.update(self.table(trials))

    def _mark(self, trial: FrozenTrial, ended: Sequence[FrozenTrial]) -> str:
        best = [found.number for found in ranked(ended, self.directions)]
        if len(self.directions) > 1:
            return "  on the front" if trial.number in best else ""
        return "  best so far" if best[:1] == [trial.number] else ""


def elapsed(trial: FrozenTrial) -> float:
    """Seconds that a trial has been at work."""
    before = sum(float(end) - float(start) for start, end in trial.user_attrs.get("sessions", []))
    if trial.state is not TrialState.RUNNING or "began" not in trial.user_attrs:
        return before
    return before + max(0.0, time.time() - float(trial.user_attrs["began"]))


def remaining(left: int, ages: Sequence[float], usual: float, slots: int) -> float:
    """Seconds until a search is done, if every trial takes as long as is usual; 0 where nobody knows.

    Args:
        left: Trials that have not ended, those at work among them.
        ages: Seconds that those at work have run.
        usual: Seconds of a trial.
        slots: Trials at a time.

    Example:
        >>> remaining(4, [10.0, 0.0], 60.0, 2)
        115.0
    """
    begun = sum(max(0.0, usual - age) for age in ages[:left])
    work = begun + usual * max(0, left - len(ages))
    return work / max(1, min(left, max(slots, len(ages))))
