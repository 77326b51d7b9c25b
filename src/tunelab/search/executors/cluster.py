"""Trials as SLURM jobs, through submitit: `search.executor=submitit`, with the extra `cluster`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError
from tunelab.search.jobs import Job
from tunelab.search.outcome import LOG


class SubmititJob:
    """One submitted job."""

    def __init__(self, job: Any, log: Path) -> None:
        self.job, self.log, self.cancelled = job, log, False

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        for text in (self.job.stdout(), self.job.stderr()):  # beside what the trial itself left
            if text:
                with self.log.open("a", encoding="utf-8") as log:
                    log.write(text)
        fault = self.job.exception()
        return 0 if fault is None else 143 if self.cancelled else 1

    def stop(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.job.cancel(check=False)


class SubmititExecutor:
    """Submits each trial as a job of its own.

    Args:
        options: `cluster` (`slurm`, or `local` for a rehearsal on this machine) and whatever `update_parameters` of
            submitit takes, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.
        logs: Where submitit keeps its files.

    Raises:
        ConfigError: If submitit is not installed or refuses an option.
    """

    def __init__(self, options: Mapping[str, Any], logs: Path) -> None:
        try:
            import submitit
        except ImportError as fault:
            raise ConfigError(
                "search.executor=submitit needs the package submitit; install it by pip install 'tunelab[cluster]'"
            ) from fault
        given = dict(options)
        try:
            self.executor = submitit.AutoExecutor(logs / "%j", cluster=given.pop("cluster", None))
            self.executor.update_parameters(**given)
        except (NameError, RuntimeError, TypeError, ValueError, AssertionError) as fault:
            raise ConfigError(
                f"search.executor_options={dict(options)}: {fault}; they are the parameters of submitit's AutoExecutor"
            ) from fault
        self.task = submitit.helpers.CommandFunction

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        folder.mkdir(parents=True, exist_ok=True)
        words = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
        return SubmititJob(self.executor.submit(self.task(words, verbose=False)), folder / LOG)
