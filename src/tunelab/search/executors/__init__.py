"""Executors by name: what starts the training of a trial."""

from pathlib import Path

from tunelab.search.executors.inline import InlineExecutor, TrainFunction
from tunelab.search.search_config import SearchConfig
from tunelab.search.trial_process import Executor, LocalExecutor


def make_executor(plan: SearchConfig, train: TrainFunction, logs: Path) -> Executor:
    """The executor that a plan names.

    Args:
        plan: Names it.
        train: Does one training in this process.
        logs: Where an executor keeps files of its own.

    Raises:
        ConfigError: If its package is not installed, or its options are wrong.
    """
    if plan.isolation == "inline":
        return InlineExecutor(train)
    if plan.executor == "submitit":
        from tunelab.search.executors.slurm import SubmititExecutor  # an extra

        return SubmititExecutor(plan.executor_options, logs)
    if plan.executor == "ray":
        from tunelab.search.executors.ray_actors import RayExecutor  # an extra

        return RayExecutor(plan.executor_options, plan.devices_per_trial)
    return LocalExecutor()
