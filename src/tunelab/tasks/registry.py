"""The tasks that `data.task` can name, and what a search and a report must know of each; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.config.instantiate import import_target
from tunelab.errors import ConfigError


@dataclass(frozen=True)
class TaskDescription:
    """What a task says of itself.

    Attributes:
        monitor: The score that early stopping and the best checkpoint follow while `monitor` is auto.
        headline_scores: Bare names of the scores that a reader looks for first.
    """

    monitor: str = "val/loss"
    headline_scores: tuple[str, ...] = ("loss",)


# Those of this package, so that a search and a report need not load torch; each class refers to its own.
DESCRIPTIONS: Mapping[str, TaskDescription] = {
    "instruction": TaskDescription("val/loss", ("exact_match", "token_f1", "rougeL", "loss")),
    "preference": TaskDescription("val/loss", ("reward_accuracy", "reward_margin", "loss")),
    "classification": TaskDescription("val/f1", ("f1", "accuracy", "loss")),
    "regression": TaskDescription("val/mse", ("spearman", "mse", "mae")),
}


def describe_task(name: str) -> TaskDescription:
    """The description of the task that `data.task` names.

    Raises:
        ConfigError: If there is no such task.
    """
    if name in DESCRIPTIONS:
        return DESCRIPTIONS[name]
    description: TaskDescription = import_task(name).description
    return description


def import_task(name: str) -> Any:
    """The class that `data.task` names: `Name` of the module `tunelab.tasks.name`, or one by its dotted name.

    Raises:
        ConfigError: If there is no such task.
    """
    target = name if "." in name else f"tunelab.tasks.{name}.{name.title()}"
    try:
        task = import_target(target)
    except ConfigError as fault:
        known = f"choose one of {', '.join(DESCRIPTIONS)}, or name a class as package.module.Class"
        raise ConfigError(f"data.task={name} is no task ({fault}); {known}") from fault
    if not isinstance(getattr(task, "description", None), TaskDescription):
        raise ConfigError(f"data.task={name} is no task: the class has no `description` that is a TaskDescription")
    return task
