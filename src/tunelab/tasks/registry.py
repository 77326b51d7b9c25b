"""The tasks that `data.task` can name, and what a search and a report must know of each; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

PREDICTION_SECTIONS = (  # by name: a report imports them when it is made
    "tunelab.report.prediction_sections:classes_section",
    "tunelab.report.example_sections:answers_section",
    "tunelab.report.prediction_sections:predicted_numbers_section",
    "tunelab.report.example_sections:worst_errors_section",
    "tunelab.report.prediction_sections:calibration_section",
)


@dataclass(frozen=True)
class TaskDescription:
    """The scores, columns and report sections that a task declares.

    Attributes:
        monitor: The score that early stopping and the best checkpoint follow while `monitor` is auto.
        headline_scores: Bare names of the scores that a reader looks for first.
        prediction_column: A column that only predictions of this task have; empty if there is none.
        report_sections: Functions, as `package.module:name`, that make the middle of the report on a run: each takes
            `tunelab.report.run_reader.RunResults` and returns a list of `tunelab.report.document.Section`, empty where
            the run has nothing for it.  Those of this package go by the columns of the predictions.
        row_scores: A function that gives scores of lines of predictions.jsonl, by bare name, for intervals and
            comparisons.
    """

    monitor: str = "val/loss"
    headline_scores: tuple[str, ...] = ("loss",)
    prediction_column: str = ""
    report_sections: tuple[str, ...] = PREDICTION_SECTIONS
    row_scores: str = "tunelab.analysis.row_scores:scores_of_predictions"


# Those of this package, so that a search and a report need not load torch; each class refers to its own.
DESCRIPTIONS: Mapping[str, TaskDescription] = {
    "instruction": TaskDescription("val/loss", ("exact_match", "token_f1", "rougeL", "loss"), "reference"),
    "preference": TaskDescription("val/loss", ("reward_accuracy", "reward_margin", "loss"), "margin"),
    "classification": TaskDescription("val/f1", ("f1", "accuracy", "loss"), "probabilities"),
    "regression": TaskDescription("val/mse", ("spearman", "mse", "mae"), "target"),
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
    from tunelab.config.instantiate import import_target  # loads Hydra, which a report does without

    target = name if "." in name else f"tunelab.tasks.{name}.{name.title()}"
    try:
        task = import_target(target)
    except ConfigError as fault:
        known = translate(
            "choose one of {names}, or name a class as package.module.Class", names=", ".join(DESCRIPTIONS)
        )
        raise ConfigError(
            translate("data.task={name} is no task ({fault}); {known}", name=name, fault=fault, known=known)
        ) from fault
    if not isinstance(getattr(task, "description", None), TaskDescription):
        raise ConfigError(
            translate(
                "data.task={name} is no task: the class has no `description` that is a TaskDescription", name=name
            )
        )
    return task
