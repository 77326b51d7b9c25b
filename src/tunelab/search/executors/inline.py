"""Trials in the searching process: no start-up time, and no protection either.  For toys and tests."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tunelab.errors import TuneLabError
from tunelab.search.jobs import Job
from tunelab.search.outcome import LOG

Train = Callable[[Sequence[str], Path], object]


@dataclass
class EndedJob:
    """A training that is over."""

    status: int

    def poll(self) -> int | None:
        return self.status

    def stop(self) -> None:
        """There is nothing to stop."""


class InlineExecutor:
    """Runs each trial to its end before `start` returns.

    Args:
        train: Does one training, from its overrides and its run folder.
    """

    def __init__(self, train: Train) -> None:
        self.train = train

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        overrides = [word for word in command[2:] if not word.startswith("hydra.")]  # what follows `python train.py`
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                self.train(overrides, folder)
            except TuneLabError as fault:
                print(f"{type(fault).__name__}: {fault}")
                return EndedJob(fault.exit_status)
            except SystemExit as leaving:
                return EndedJob(leaving.code if isinstance(leaving.code, int) else 1)
            except Exception as fault:
                print(f"{type(fault).__name__}: {fault}")
                return EndedJob(1)
        return EndedJob(0)
