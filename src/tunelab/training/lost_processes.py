"""A run on several processes that loses one: which failed and why, and an end for the main process that waits for it.

A process that fails leaves its error in the run folder (`error.rankN.log`), its reason in the first line.  The main
process mostly meets a broken connection then, or waits for ever; its `run.json` names the error of the other.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from typing_extensions import override

from tunelab.errors import TuneLabError
from tunelab.language.translation import translate
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.stop_signals import STOPPED_STATUSES

POLL = 1.0  # seconds
GRACE = 10.0  # seconds for the main process to notice by itself


class ProcessLost(TuneLabError):
    """Another process of the run failed."""


class UnobservedLauncher(_SubprocessScriptLauncher):
    """Starts processes as Lightning does, whose observer would kill this one before it can say what happened."""

    @override
    def launch(self, function: Callable[..., Any], *args: Any, trainer: L.Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


class ProcessWatch(threading.Thread):
    """Watches the other processes of a run from its main one, once it is attached to a trainer.

    Args:
        folder: Of the run.
        end: Ends this process where it does not end by itself.
    """

    def __init__(self, folder: RunDirectory, end: Callable[[ProcessLost], None]) -> None:
        super().__init__(daemon=True, name="process-watch")
        self.folder, self.end = folder, end
        self.launcher: UnobservedLauncher | None = None
        self.is_over = threading.Event()

    def attach(self, trainer: L.Trainer) -> None:
        """Watch from now on what a trainer starts, and what torchrun or srun has started; none where it is alone."""
        if trainer.world_size == 1:
            return
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            places = launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
            self.launcher = trainer.strategy._launcher = UnobservedLauncher(*places)
        self.start()

    def failure(self) -> ProcessLost | None:
        """The failure of another process; None while there is none."""
        for rank, reason in self.folder.read_rank_errors().items():
            return ProcessLost(
                translate(
                    "process {rank} of the run failed: {reason}; where it happened is in {file}",
                    rank=rank,
                    reason=reason,
                    file=self.folder.rank_error(rank),
                )
            )
        for rank, process in enumerate(self.launcher.procs if self.launcher else (), start=1):
            if (status := process.poll()) and status not in STOPPED_STATUSES:
                how = signal.Signals(-status).name if status < 0 else translate("exit status {status}", status=status)
                return ProcessLost(
                    translate(
                        "process {rank} of the run ended without a word ({how}); SIGKILL mostly means that the "
                        "machine was short of memory",
                        rank=rank,
                        how=how,
                    )
                )
        return None

    @override
    def run(self) -> None:
        while not self.is_over.wait(POLL):
            if self.failure() is not None:
                if not self.is_over.wait(GRACE):
                    self.end_all()
                return

    def end_all(self) -> None:
        """End this process and those it started: it waits for one that is gone."""
        fault = self.failure()
        assert fault is not None
        self.end(fault)
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
        for process in self.launcher.procs if self.launcher else ():
            process.kill()
        os._exit(fault.exit_status)

    def cause_of(self, fault: BaseException, reason: str) -> ProcessLost | None:
        """The failure of another process that an error of this one comes from; None where it is an error of its own.

        The watch is over then.

        Args:
            fault: The error of this process.
            reason: What its manifest would say of it.
        """
        self.is_over.set()
        own = isinstance(fault, TuneLabError | KeyboardInterrupt)
        waits = self.ident is not None and not isinstance(fault, SystemExit)  # the other may still be writing
        until = time.monotonic() + (3 * POLL if waits else 0)
        while (lost := self.failure()) is None and not own and time.monotonic() < until:
            time.sleep(POLL / 10)
        if own or reason.splitlines()[:1] == [*self.folder.read_rank_errors().values()][:1]:
            self.folder.remove_rank_errors()
            return None
        return lost
