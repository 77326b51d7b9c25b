"""Which scores a search optimises, and which way each gets better."""

from omegaconf import DictConfig

from tunelab.monitored import MONITORS, direction
from tunelab.search.plan import Plan


def objectives_of(config: DictConfig, plan: Plan) -> tuple[list[str], list[str]]:
    """Names and directions (`min` or `max`) of the objectives.

    Args:
        config: Names the monitored score, or leaves it to the task.
        plan: May name others.
    """
    if plan.objectives:
        return list(plan.objectives), [direction(name) for name in plan.objectives]
    name = MONITORS[str(config.data.task)] if config.monitor == "auto" else str(config.monitor)
    return [name], [direction(name) if config.mode == "auto" else str(config.mode)]
