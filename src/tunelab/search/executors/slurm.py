"""Trials as SLURM jobs, through submitit: `search.executor=submitit`, with the extra `cluster`."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from typing_extensions import override

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.search.heartbeat import is_local_process
from tunelab.search.trial_outcome import TRIAL_LOG, implied_exit_status
from tunelab.search.trial_process import Executor, Job

STATUS_FILE = "exit_status"  # submitit reports only whether a command failed
SHELL_SCRIPT = 'log=$1 status=$2; shift 2; "$@" >>"$log" 2>&1; code=$?; echo $code >"$status"; exit $code'


class SubmititJob:
    """One submitted job.

    Args:
        job: The job of submitit.
        folder: The run directory of the trial.
    """

    def __init__(self, job: Any, folder: Path) -> None:
        self.job, self.folder, self.cancelled = job, folder, False
        self.reference = f"submitit:{job.job_id}"

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        with suppress(OSError, ValueError):
            return int((self.folder / STATUS_FILE).read_text(encoding="utf-8"))
        return 143 if self.cancelled else implied_exit_status(self.folder)  # the node was lost before it wrote one

    def stop(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.job.cancel(check=False)  # SLURM sends SIGTERM, then SIGKILL after its KillWait

    def kill(self) -> None:
        self.cancelled = True
        self.job.cancel(check=False)


class SubmititExecutor(Executor):
    """Submits each trial as a job of its own.

    Args:
        options: `cluster` (`slurm`, or `local` for a test on this machine) and the arguments of submitit's
            `update_parameters`, such as `slurm_partition`, `timeout_min`, `gpus_per_node`.
        logs: Folder for the files of submitit.

    Raises:
        ConfigError: If submitit is not installed or refuses an option.
    """

    def __init__(self, options: Mapping[str, Any], logs: Path) -> None:
        try:
            import submitit
        except ImportError as fault:
            raise ConfigError(
                translate(
                    "search.executor=submitit needs the package submitit; install it by pip install -e '.[cluster]'"
                )
            ) from fault
        parameters = dict(options)
        self.logs, self.package = logs, submitit
        os.environ["PYTHONSAFEPATH"] = "1"  # submitit starts `python -m`, which would import what lies in this folder
        try:
            self.executor = submitit.AutoExecutor(logs / "%j", cluster=parameters.pop("cluster", None))
            self.executor.update_parameters(**parameters)
        except (NameError, RuntimeError, TypeError, ValueError, AssertionError) as fault:
            raise ConfigError(
                translate(
                    "search.executor_options={options}: {fault}; they are the parameters of submitit's AutoExecutor",
                    options=dict(options),
                    fault=fault,
                )
            ) from fault

    @override
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATUS_FILE).unlink(missing_ok=True)
        variables = [f"{name}={value}" for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"]
        words = [
            "sh",
            "-c",
            SHELL_SCRIPT,
            "sh",
            str(folder / TRIAL_LOG),
            str(folder / STATUS_FILE),
            "env",
            "PYTHONSAFEPATH=",
            *variables,
            *command,
        ]
        task = self.package.helpers.CommandFunction(words, verbose=False)
        return SubmititJob(self.executor.submit(task), folder)

    @override
    def adopt(self, reference: str, folder: Path) -> Job | None:
        kind, _, number = reference.partition(":")
        if kind != "submitit" or is_local_process(reference) or self.executor.cluster != "slurm":
            return None
        return SubmititJob(self.package.SlurmJob(self.logs / "%j", number), folder)
