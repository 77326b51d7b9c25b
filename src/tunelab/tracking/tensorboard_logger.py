"""The TensorBoard logger: curves, histograms, tables, and hyper-parameters beside final scores."""

import re
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as as_hyper_parameters
from typing_extensions import override

from tunelab.config.flatten import flatten
from tunelab.runs.redact import redact
from tunelab.tracking.base import (
    RunResults,
    confusion_tables,
    markdown_table,
    records_table,
    scores_table,
    split_final_scores,
)

PlainValue = str | float | int | bool
SHARES = ("f1", "accuracy", "exact_match", "token_accuracy", "reward_accuracy", "pearson", "r2")  # scores of at most 1


class TensorBoard(TensorBoardLogger):
    """Writes event files below the run directory.

    Scalars are curves only.  Final scores are single numbers: they stand beside the settings on the HParams page, which
    compares runs by both, and in a table under Text.  They are written at the end, once: Lightning writes a placeholder
    at the start, which the page then shows as a score of -1 for every run that is still training.

    Args:
        folder: The run directory.
        run_config: The resolved config of the run; secrets are taken out.
        monitor: The score that the best checkpoint follows.
        resume_from_step: Optimizer steps already done; later events come from a run that was interrupted, and
            TensorBoard hides them.
    """

    def __init__(
        self, folder: str, *, run_config: Mapping[str, Any], monitor: str, resume_from_step: int | None
    ) -> None:
        super().__init__(folder, name="tensorboard", version="", purge_step=resume_from_step, default_hp_metric=False)
        self._settings = plain_settings(redact(run_config))
        self._monitor = monitor
        self._has_layout = False

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._has_layout:
            self._has_layout = True
            self.experiment.add_custom_scalars(chart_layout(self._monitor))
        curves, _ = split_final_scores(metrics)  # `log_results` writes the final scores
        curves.pop("epoch", None)  # it would be the first chart of every page
        super().log_metrics(curves, step)

    @override
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        pass  # `log_results` writes them beside the scores

    @rank_zero_only
    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log a histogram of each tensor, by name of parameter."""
        for name, value in values.items():
            entries = value.detach().float().flatten()
            self.experiment.add_histogram(f"gradients/{name}", entries[entries.isfinite()], step)

    @rank_zero_only
    def log_results(self, results: RunResults) -> None:
        """Write scores and settings for the HParams page; scores, confusion matrix and predictions as texts."""
        writer: Any = self.experiment
        tables = {"scores": scores_table(results.scores), **confusion_tables(results)}
        for name, (columns, lines) in tables.items():
            writer.add_text(name, markdown_table(columns, lines))
        if results.predictions:
            writer.add_text("test/predictions", markdown_table(*records_table(redact(list(results.predictions)))))
        curves = dict.fromkeys(dict.fromkeys([self._monitor, "val/loss"]), 0.0)
        for summary in as_hyper_parameters({**results.scores, **self._settings}, curves):
            writer.file_writer.add_summary(summary)  # open since the first text: Lightning closes it after each loop
        writer.flush()


def chart_layout(monitor: str) -> dict[str, dict[str, list[str | list[str]]]]:
    """The page of Custom Scalars: title of a section to title of a chart to its kind and the patterns of its curves."""

    def chart(*patterns: str) -> list[str | list[str]]:
        return ["Multiline", list(patterns)]

    return {
        "loss and monitored score": {
            "loss": chart(r"train/loss$", r"val/loss$"),
            **({} if monitor == "val/loss" else {monitor: chart(f"{re.escape(monitor)}$")}),
        },
        "scores of validation": {
            "shares": chart(rf"val/({'|'.join(SHARES)})$"),
            "all others": chart(rf"val/(?!({'|'.join(SHARES)}|loss)$).*"),
        },
        "optimizer": {
            "learning rate": chart(r"train/lr$"),
            "gradient norm": chart(r"train/grad_norm$"),
            "update ratio": chart(r"train/update_ratio$"),
        },
        "layers": {name: chart(rf"layers/.*/{name}$") for name in ("grad_norm", "update_ratio", "dead_units")},
    }


def plain_settings(nested: Mapping[str, Any]) -> dict[str, PlainValue]:
    """Nested settings by dotted name; None and lists as text, because the HParams page takes plain values."""
    return {
        name: value if isinstance(value, str | float | int | bool) else str(value)
        for name, value in flatten(nested).items()
    }
