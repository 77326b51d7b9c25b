"""What a search says while it runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tunelab import console
from tunelab.search.ledger import WORDS, ranked
from tunelab.search.proposals import counted

SHOWN = 8  # trials of the live table
REFRESH = 2.0  # seconds between two drawings


class Watch:
    """Follows a search.

    Args:
        wanted: Trials that the study shall hold; None if nobody knows.
        directions: Of the objectives.
    """

    def __init__(self, wanted: int | None, directions: Sequence[StudyDirection]) -> None:
        self.wanted, self.directions = wanted, directions
        self.began, self.told, self.before = time.monotonic(), set[int](), None
        self.done_before: int | None = None
        self.live = Live(console=Console(), refresh_per_second=2, transient=True) if console.is_terminal() else None

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

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Show where the search stands."""
        ended = [trial for trial in counted(trials) if trial.state.is_finished()]
        if self.done_before is None:
            self.done_before = len(ended)
            self.told = {trial.number for trial in ended}
        best = ranked(ended, self.directions)
        for trial in ended:
            if trial.number not in self.told:
                self.told.add(trial.number)
                self.say(sentence(trial, best[0] if best else None, self.progress(ended)))
        if self.live is not None:
            self.live.update(self.table(trials, best))

    def progress(self, ended: Sequence[FrozenTrial]) -> str:
        """How far the search is, and how long it may take."""
        spent, fresh = time.monotonic() - self.began, len(ended) - (self.done_before or 0)
        if self.wanted is None:
            return f"{len(ended)} done"
        left = max(0, self.wanted - len(ended))
        eta = f", about {clock(spent / fresh * left)} left" if fresh > 0 and left else ""
        return f"{len(ended)} of {self.wanted}{eta}"

    def table(self, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial]) -> Table:
        """The running trials, then the best ones."""
        states = Counter(WORDS.get(trial.state, trial.state.name.lower()) for trial in counted(trials))
        ended = [trial for trial in counted(trials) if trial.state.is_finished()]
        counts = ", ".join(f"{count} {word}" for word, count in states.items())
        grid = Table(title=f"{self.progress(ended)}: {counts}", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("trial", "state", "value", "settings"):
            grid.add_column(name, overflow="fold")
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        for trial in [*running, *best[:SHOWN]]:
            latest = list(trial.intermediate_values.values())[-1:]
            values = trial.values if trial.values is not None else latest
            state = WORDS.get(trial.state, "running")
            grid.add_row(str(trial.number), state, " ".join(f"{v:.5g}" for v in values), settings(trial.params))
        return grid


def sentence(trial: FrozenTrial, best: FrozenTrial | None, progress: str) -> str:
    """One line for a trial that ended."""
    word = WORDS[trial.state]
    if trial.state is TrialState.COMPLETE:
        word = " ".join(f"{value:.5g}" for value in trial.values)
    elif trial.user_attrs.get("kind"):
        word += f" ({trial.user_attrs['kind']}: {str(trial.user_attrs.get('reason', '')).splitlines()[0][:120]})"
    mark = "  best so far" if best is not None and best.number == trial.number else ""
    return f"trial {trial.number}: {word}  {settings(trial.params)}  [{progress}]{mark}"


def settings(params: Mapping[str, Any]) -> str:
    """A configuration on one line, numbers short."""
    return "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def clock(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
