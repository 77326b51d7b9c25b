"""The Weights & Biases logger: it never prompts, never blocks for long and never stops a training."""

import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override

from tunelab.runs.redact import redact
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tracking.base import (
    FaultTolerantLogger,
    RunResults,
    records_table,
    redacted_first_line,
    split_final_scores,
)

STEP_METRIC = "trainer/global_step"  # the metric on every x axis: wandb's own step restarts at 0 when a run is resumed
_FAILED_STATUSES = ("failed", "crashed", "preempted", "interrupted")
_START_SECONDS = 20  # seconds until a server that does not answer is given up
_FINISH_SECONDS = 60.0  # seconds that uploading the rest may take at the end
_log = logging.getLogger(__name__)


class WandbRun(FaultTolerantLogger):
    """One W&B run, stored below `<folder>/wandb`.

    Lightning's own WandbLogger is not used: it sets WANDB_MODE for the whole process, decides where checkpoints
    go, and leaves the run open, so that the next one in the same process is merged into it.

    Args:
        folder: The run directory.
        mode: `online` or `offline`.
        init_arguments: Arguments of `wandb.init` besides mode, dir and settings.
        monitor: The score whose best value the run summary keeps.
        monitor_mode: `min` or `max`: which value of the monitor is best.
    """

    def __init__(
        self, folder: Path, *, mode: str, init_arguments: Mapping[str, Any], monitor: str, monitor_mode: str
    ) -> None:
        super().__init__("W&B")
        self.folder = folder
        self.mode = mode
        self._init_arguments = dict(init_arguments)
        self._monitor = monitor
        self._monitor_mode = monitor_mode
        self._run: Any = None
        self._defined: set[str] = set()  # metrics whose summary is defined
        self._data_folder_before: str | None = None

    @property
    @override
    def version(self) -> str | None:
        return str(self._init_arguments["id"])

    @property
    @override
    def save_dir(self) -> str | None:
        return str(self.folder)

    @property
    def experiment(self) -> Any:
        """The `wandb.Run`; None before `start`, after `finish` and where wandb could not start."""
        return self._run

    def start(self) -> None:
        """Start the run: offline if no server answers, and not at all if wandb cannot start."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._data_folder_before = os.environ.get("WANDB_DATA_DIR")
        if not self._data_folder_before:
            data = self.folder / "wandb" / "data"  # else tables wait for upload in the home folder and get lost
            data.mkdir(parents=True, exist_ok=True)
            os.environ["WANDB_DATA_DIR"] = str(data)
        modes: list[Literal["online", "offline"]] = ["online", "offline"] if self.mode == "online" else ["offline"]
        for mode in modes:
            try:
                self._run = self._init_wandb(mode)
            except Exception as fault:  # whatever fails in wandb, the training goes on
                consequence = "going on offline" if mode != modes[-1] else "going on without it"
                _log.warning("W&B could not start %s (%s); %s", mode, redacted_first_line(fault), consequence)
            else:
                self.mode = mode
                return

    def _init_wandb(self, mode: Literal["online", "offline"]) -> Any:
        import wandb  # half a second that runs without wandb need not pay

        settings = wandb.Settings(
            console="off",  # the terminal is not copied into the run: it may show what redaction took out
            silent=True,
            init_timeout=_START_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            x_disable_meta=redact(sys.argv) != sys.argv,  # the metadata hold the command line
        )
        place = Path(os.environ.get("WANDB_DIR") or self.folder)
        place.mkdir(parents=True, exist_ok=True)  # W&B takes a temporary folder instead of one that is not there
        run = wandb.init(mode=mode, dir=str(place), settings=settings, resume="allow", **self._init_arguments)
        run.define_metric(STEP_METRIC)
        run.define_metric("*", step_metric=STEP_METRIC, step_sync=True)
        run.define_metric("layers/*", step_metric=STEP_METRIC, step_sync=True, hidden=True)  # dozens of charts
        run.define_metric(self._monitor, step_metric=STEP_METRIC, step_sync=True, summary=self._monitor_mode)
        self._defined = {self._monitor}
        return run

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            metrics, final = split_final_scores(metrics)
            if final:  # as charts they would be single points, and the first that a reader sees
                self.attempt("summary", lambda: self._run.summary.update(final))
            if not metrics:
                return
            for name in metrics.keys() - self._defined:
                self._defined.add(name)
                if name.startswith("val/"):  # the summary keeps each validation score's best, not its last
                    self.attempt("define_metric", partial(self._keep_best, name))
            values = dict(metrics) if step is None else {**metrics, STEP_METRIC: step}
            self.attempt("log", lambda: self._run.log(values))

    def _keep_best(self, name: str) -> None:
        self._run.define_metric(name, step_metric=STEP_METRIC, step_sync=True, summary=metric_direction(name))

    @rank_zero_only
    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Log a histogram of each tensor, by name of parameter."""
        if self._run is not None:
            histograms = {f"gradients/{name}": make_histogram(value) for name, value in values.items()}
            self.attempt("histograms", lambda: self._run.log({**histograms, STEP_METRIC: step}))

    @rank_zero_only
    def log_results(self, results: RunResults) -> None:
        """Keep the final scores in the summary; upload confusion matrices, predictions and files."""
        if self._run is not None:
            # a curve has its own place in the summary; a chart of one point says nothing
            single = {name: value for name, value in results.scores.items() if name not in self._defined}
            self.attempt("summary", lambda: self._run.summary.update(single))
            self.attempt("log results", lambda: upload_results(self._run, results, name=self.folder.name))

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Close the run; without this the next run of the process would be merged into it.

        Args:
            status: `success`, `failed`, `preempted` or `interrupted`; kept in the run's summary.
        """
        if self._run is not None:
            run, self._run = self._run, None
            self.attempt("summary", lambda: run.summary.update({"status": status}))
            if status == "preempted":
                self.attempt("preempting", run.mark_preempting)
            self.attempt("finish", lambda: run.finish(exit_code=int(status in _FAILED_STATUSES)))
        if self._data_folder_before is None:
            os.environ.pop("WANDB_DATA_DIR", None)
        else:
            os.environ["WANDB_DATA_DIR"] = self._data_folder_before


HISTOGRAM_BINS = 64  # of a histogram; W&B takes at most 512


def upload_results(run: Any, results: RunResults, *, name: str) -> None:
    """Log charts and tables of the results to a W&B run, and its files as artifacts.

    Args:
        run: The `wandb.Run`.
        results: The final results.
        name: Name of the run; an artifact is called `KIND-NAME`.
    """
    import wandb  # half a second that runs without wandb need not pay

    for split, counts in results.confusion.items():
        cells = [
            [true, predicted, counts[i][j]]
            for i, true in enumerate(results.labels)
            for j, predicted in enumerate(results.labels)
        ]
        chart = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells),
            fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            string_fields={"title": f"{split}: true and predicted classes"},
        )
        run.log({f"{split}/confusion": chart})
    if results.predictions:
        columns, lines = records_table(redact(list(results.predictions)))
        run.log({"test/predictions": wandb.Table(columns=list(columns), data=lines, allow_mixed_types=True)})
    for kind, place in results.files.items():
        if kind == "report" and place.suffix == ".html":
            run.log({"report": wandb.Html(place.read_text(encoding="utf-8"), inject=False)})
        run.log_artifact(make_artifact(kind, place, f"{kind}-{name}", results.scores))


def make_artifact(kind: str, place: Path, name: str, scores: Mapping[str, float]) -> Any:
    """A W&B artifact of a file or folder, with the scores as metadata."""
    import wandb  # as above

    artifact = wandb.Artifact(name, type="model" if kind == "export" else kind, metadata=dict(scores))
    artifact.add_dir(str(place)) if place.is_dir() else artifact.add_file(str(place))
    return artifact


def make_histogram(values: Tensor) -> Any:
    """A W&B histogram of the finite entries of a tensor."""
    import wandb  # as above

    entries = values.detach().float().flatten()
    counts, edges = np.histogram(entries[entries.isfinite()].cpu().numpy(), bins=HISTOGRAM_BINS)
    return wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
