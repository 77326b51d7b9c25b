"""Executors by name: they start the trainings of trials."""

import sys
from collections.abc import Callable
from pathlib import Path

from tunelab.config.schema import SearchConfig
from tunelab.search.executors.inline import InlineExecutor, TrainFunction
from tunelab.search.trial_process import Executor, LocalExecutor


def make_executor(
    search: SearchConfig,
    train: TrainFunction,
    logs: Path,
    say: Callable[[str], None] = print,
    script: Path | None = None,
) -> Executor:
    """The executor of `search.executor`, `search.isolation` and `search.fork`.

    Args:
        search: The `search` block.
        train: Does one training in this process.
        logs: Folder for files of the executor.
        say: Prints a line.
        script: The script of one's own that starts trainings; None where a module does.

    Raises:
        ConfigError: If its package is not installed, or its options are wrong.
    """
    if search.isolation == "inline":
        return InlineExecutor(train)
    if search.executor == "submitit":
        from tunelab.search.executors.slurm import SubmititExecutor  # an extra

        return SubmititExecutor(search.executor_options, logs)
    if search.executor == "ray":
        from tunelab.search.executors.ray_actors import RayExecutor  # an extra

        return RayExecutor(search.executor_options, search.devices_per_trial)
    return local_executor(say, script, fork=search.fork)


def local_executor(say: Callable[[str], None], script: Path | None, *, fork: bool) -> LocalExecutor:
    """The executor of this machine: it forks from one process where it may and that is safe.

    Args:
        say: Prints a line.
        script: The script of one's own that starts trainings; None where a module does.
        fork: Whether it may.
    """
    if fork and sys.platform == "linux":  # elsewhere system libraries start threads that no fork survives
        from tunelab.search.executors.forking import ForkingExecutor  # which starts a module beside it

        return ForkingExecutor(say, script=script)
    return LocalExecutor()
