"""Trials in the process of the search: no start-up time, and no isolation.  For toys and tests."""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path

from typing_extensions import override

from tunelab.errors import TuneLabError
from tunelab.runs.stop_signals import STOP_SIGNALS
from tunelab.search.trial_outcome import open_log
from tunelab.search.trial_process import Executor, Job

TrainFunction = Callable[[Sequence[str], Path], object]
STOP_STATUSES = {128 + number: number for number in STOP_SIGNALS}


class InlineJob:
    """A training that runs to its end when it is first polled.

    Args:
        train: Does one training, from its overrides and its run directory.
        overrides: Overrides of the trial.
        folder: Its run directory.
    """

    reference = ""  # it dies with its engine

    def __init__(self, train: TrainFunction, overrides: Sequence[str], folder: Path) -> None:
        self.train, self.overrides, self.folder, self.stop_requested = train, overrides, folder, False

    def poll(self) -> int:
        if self.stop_requested:
            return 128 + signal.SIGTERM
        self.folder.mkdir(parents=True, exist_ok=True)
        with TextIOWrapper(open_log(self.folder), "utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            status = self._train_status()
        if status in STOP_STATUSES:  # the signal was for the search as well, but the training handled it
            signal.raise_signal(STOP_STATUSES[status])
        return status

    def stop(self) -> None:
        self.stop_requested = True

    kill = stop

    def _train_status(self) -> int:
        try:
            self.train(self.overrides, self.folder)
        except TuneLabError as fault:
            print(f"{type(fault).__name__}: {fault}")
            return fault.exit_status
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else 1
        except Exception as fault:
            print(f"{type(fault).__name__}: {fault}")
            return 1
        return 0


class InlineExecutor(Executor):
    """Runs trials one after the other in this process.

    Args:
        train: Does one training, from its overrides and its run directory.
    """

    def __init__(self, train: TrainFunction) -> None:
        self.train = train

    @override
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        words = [word for word in command if "=" in word]
        overrides = [word for word in words if not word.startswith("hydra.") or word.startswith("hydra.searchpath=")]
        return InlineJob(self.train, overrides, folder)

    @override
    def adopt(self, reference: str, folder: Path) -> Job | None:
        return None
