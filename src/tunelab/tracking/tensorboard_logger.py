"""The TensorBoard logger: curves, histograms, tables, and hyper-parameters beside final scores."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as as_hyper_parameters
from typing_extensions import override

from tunelab.config.flatten import flatten
from tunelab.runs.redact import redact
from tunelab.tracking.base import RunResults, confusion_tables, markdown_table, records_table, split_final_scores

PlainValue = str | float | int | bool


class TensorBoard(TensorBoardLogger):
    """Writes event files below the run directory.

    The HParams page compares runs by settings and final scores, so both are written at the end, once, with the
    scores under their own names: Lightning writes a placeholder at the start, which the page then shows as a score
    of -1 for every run that is still training.

    Args:
        folder: The run directory.
        run_config: The resolved config of the run; secrets are taken out.
        resume_from_step: Optimizer steps already done; later events come from a run that was interrupted, and
            TensorBoard hides them.
    """

    def __init__(self, folder: str, *, run_config: Mapping[str, Any], resume_from_step: int | None) -> None:
        super().__init__(folder, name="tensorboard", version="", purge_step=resume_from_step, default_hp_metric=False)
        self._settings = plain_settings(redact(run_config))

    @override
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        pass  # `log_results` writes them beside the scores

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves, _ = split_final_scores(metrics)  # `log_results` writes the final scores, as the HParams page needs them
        super().log_metrics(curves, step)

    @rank_zero_only
    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log a histogram of each tensor, by name of parameter."""
        for name, value in values.items():
            entries = value.detach().float().flatten()
            self.experiment.add_histogram(f"gradients/{name}", entries[entries.isfinite()], step)

    @rank_zero_only
    def log_results(self, results: RunResults) -> None:
        """Write settings and scores for the HParams page, confusion matrix and predictions as texts."""
        writer: Any = self.experiment
        scores = {name: value for name, value in results.scores.items() if not name.startswith(("base/", "last/"))}
        for summary in as_hyper_parameters(self._settings, dict.fromkeys(scores, 0.0)):
            writer.file_writer.add_summary(summary)
        for name, value in scores.items():
            writer.add_scalar(name, value, 0)
        for name, (columns, lines) in confusion_tables(results).items():
            writer.add_text(name, markdown_table(columns, lines))
        if results.predictions:
            writer.add_text("test/predictions", markdown_table(*records_table(redact(list(results.predictions)))))
        writer.flush()


def plain_settings(nested: Mapping[str, Any]) -> dict[str, PlainValue]:
    """Nested settings by dotted name; None and lists as text, because the HParams page takes plain values."""
    return {
        name: value if isinstance(value, str | float | int | bool) else str(value)
        for name, value in flatten(nested).items()
    }
