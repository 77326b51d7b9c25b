"""TensorBoard as users review runs in it: curves, the hyper-parameters of each run beside its scores, tables."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard.summary import hparams as as_hyper_parameters
from typing_extensions import override

from tunelab.runs.redact import redact
from tunelab.tracking.base import RunResults, confusion_tables, markdown_table, records_table

PlainValue = str | float | int | bool


class TensorBoard(TensorBoardLogger):
    """Writes events below the run folder.

    The HParams page compares runs by settings and final scores, so both are written at the end, once, with the
    scores under their own names: Lightning writes a placeholder at the start, which the page then shows as a score
    of -1 for every run that is still at work.

    Args:
        folder: The run folder.
        run_config: The resolved config of the run; secrets are taken out.
        resume_from_step: Optimizer steps already done; later events come from a run that was cut off, and
            TensorBoard hides them.
    """

    def __init__(self, folder: str, *, run_config: Mapping[str, Any], resume_from_step: int | None) -> None:
        super().__init__(folder, name="tensorboard", version="", purge_step=resume_from_step, default_hp_metric=False)
        self._settings = flatten_settings(redact(run_config))

    @override
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        pass  # `show` writes them beside the scores

    @rank_zero_only
    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Draw how each tensor's values spread, by name of parameter."""
        for name, value in values.items():
            flat = value.detach().float().flatten()
            self.experiment.add_histogram(f"gradients/{name}", flat[flat.isfinite()], step)

    @rank_zero_only
    def show(self, shown: RunResults) -> None:
        """Write settings and scores for the HParams page, and confusion matrix and predictions as texts."""
        writer: Any = self.experiment
        for summary in as_hyper_parameters(self._settings, dict.fromkeys(shown.scores, 0.0)):
            writer.file_writer.add_summary(summary)
        for name, value in shown.scores.items():
            writer.add_scalar(name, value, 0)
        for name, (columns, lines) in confusion_tables(shown).items():
            writer.add_text(name, markdown_table(columns, lines))
        if shown.predictions:
            writer.add_text("test/predictions", markdown_table(*records_table(redact(list(shown.predictions)))))
        writer.flush()


def flatten_settings(nested: Mapping[str, Any], above: str = "") -> dict[str, PlainValue]:
    """Nested settings by dotted name; None and empty lists stand as texts, because the page takes plain values."""
    found: dict[str, PlainValue] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= flatten_settings(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value if isinstance(value, str | float | int | bool) else str(value)
    return found
