"""What starts the training of a trial, by name."""

from pathlib import Path

from tunelab.search.executors.inline import InlineExecutor, Train
from tunelab.search.jobs import Executor, LocalExecutor
from tunelab.search.plan import Plan


def make_executor(plan: Plan, train: Train, logs: Path) -> Executor:
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
        from tunelab.search.executors.cluster import SubmititExecutor  # an extra

        return SubmititExecutor(plan.executor_options, logs)
    if plan.executor == "ray":
        from tunelab.search.executors.ray_actors import RayExecutor  # an extra

        return RayExecutor(plan.executor_options, plan.devices_per_trial)
    return LocalExecutor()
