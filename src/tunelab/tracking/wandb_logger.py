"""Weights & Biases as a Lightning logger that never asks, never waits for long and never stops a training."""

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
from tunelab.tracking.base import FaultTolerantLogger, RunResults, records_table, redacted_first_line

STEP_METRIC = "trainer/global_step"  # the metric on every x axis: wandb's own step restarts at 0 when a run goes on
_FAILED_STATUSES = ("failed", "crashed", "preempted", "interrupted")
_START_SECONDS = 20  # seconds until a server that does not answer is given up
_FINISH_SECONDS = 60.0  # seconds that uploading the rest may take at the end
_log = logging.getLogger(__name__)


class WandbRun(FaultTolerantLogger):
    """One W&B run below `<folder>/wandb`.

    Lightning's own WandbLogger is not used: it sets WANDB_MODE for the whole process, decides where checkpoints
    go, and leaves the run open, so that the next one in the same process is merged into it.

    Args:
        folder: The run folder.
        mode: `online` or `offline`.
        start: What `wandb.init` is called with, besides mode, dir and settings.
        monitor: The score whose best value the run summary keeps.
        best: `min` or `max`.
    """

    def __init__(self, folder: Path, *, mode: str, start: Mapping[str, Any], monitor: str, best: str) -> None:
        super().__init__("W&B")
        self.folder = folder
        self.mode = mode
        self._start = dict(start)
        self._monitor = monitor
        self._best = best
        self._run: Any = None
        self._known: set[str] = set()  # scores that were logged, whose summary is settled
        self._data_folder_before: str | None = None

    @property
    @override
    def version(self) -> str | None:
        return str(self._start["id"])

    @property
    @override
    def save_dir(self) -> str | None:
        return str(self.folder)

    @property
    def experiment(self) -> Any:
        """The `wandb.Run`; None before `begin`, after `finish` and where wandb could not start."""
        return self._run

    def begin(self) -> None:
        """Start the run: offline where no server answers, and none at all where wandb cannot start."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._data_folder_before = os.environ.get("WANDB_DATA_DIR")
        data = self.folder / "wandb" / "data"  # else tables wait for upload in the home folder and get lost
        data.mkdir(parents=True, exist_ok=True)
        os.environ["WANDB_DATA_DIR"] = str(data)
        modes: list[Literal["online", "offline"]] = ["online", "offline"] if self.mode == "online" else ["offline"]
        for mode in modes:
            try:
                self._run = self._initialise(mode)
            except Exception as fault:  # whatever wandb meets, the training goes on
                consequence = "going on offline" if mode != modes[-1] else "going on without it"
                _log.warning("W&B could not start %s (%s); %s", mode, redacted_first_line(fault), consequence)
            else:
                self.mode = mode
                return

    def _initialise(self, mode: Literal["online", "offline"]) -> Any:
        import wandb  # half a second that runs without wandb need not pay

        settings = wandb.Settings(
            console="off",  # the terminal is not copied into the run: it may show what redaction took out
            silent=True,
            init_timeout=_START_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            x_disable_meta=redact(sys.argv) != sys.argv,  # the metadata hold the command line
        )
        run = wandb.init(mode=mode, dir=str(self.folder), settings=settings, resume="allow", **self._start)
        run.define_metric(STEP_METRIC)
        run.define_metric("*", step_metric=STEP_METRIC, step_sync=True)
        run.define_metric(self._monitor, step_metric=STEP_METRIC, step_sync=True, summary=self._best)
        self._known = {self._monitor}
        return run

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            for name in metrics.keys() - self._known:
                self._known.add(name)
                if name.startswith("val/"):  # the summary keeps each validation score's best, not its last
                    self.guard("define_metric", partial(self._keep_best, name))
            values = dict(metrics) if step is None else {**metrics, STEP_METRIC: step}
            self.guard("log", lambda: self._run.log(values))

    def _keep_best(self, name: str) -> None:
        self._run.define_metric(name, step_metric=STEP_METRIC, step_sync=True, summary=metric_direction(name))

    @rank_zero_only
    def log_histograms(self, values: Mapping[str, Tensor], step: int) -> None:
        """Draw how each tensor's values spread, by name of parameter."""
        if self._run is not None:
            drawn = {f"gradients/{name}": make_histogram(value) for name, value in values.items()}
            self.guard("histograms", lambda: self._run.log({**drawn, STEP_METRIC: step}))

    @rank_zero_only
    def show(self, shown: RunResults) -> None:
        """Put confusion matrix, predictions and files on the run's page."""
        if self._run is not None:
            self.guard("show", lambda: log_results(self._run, shown, name=self.folder.name))

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Close the run; without this the next run of the process would be merged into it.

        Args:
            status: `success`, `failed`, `preempted` or `interrupted`; kept in the run's summary.
        """
        if self._run is not None:
            run, self._run = self._run, None
            self.guard("summary", lambda: run.summary.update({"status": status}))
            if status == "preempted":
                self.guard("preempting", run.mark_preempting)
            self.guard("finish", lambda: run.finish(exit_code=int(status in _FAILED_STATUSES)))
        if self._data_folder_before is None:
            os.environ.pop("WANDB_DATA_DIR", None)
        else:
            os.environ["WANDB_DATA_DIR"] = self._data_folder_before


HISTOGRAM_BINS = 64  # of a histogram; W&B takes at most 512


def log_results(run: Any, shown: RunResults, *, name: str) -> None:
    """Put the results of a run on its page.

    Args:
        run: The `wandb.Run`.
        shown: What there is.
        name: What artifacts are called after, with their kind before it.
    """
    import wandb  # half a second that runs without wandb need not pay

    for split, counts in shown.confusion.items():
        cells = [
            [real, given, counts[i][j]] for i, real in enumerate(shown.labels) for j, given in enumerate(shown.labels)
        ]
        chart = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells),
            fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            string_fields={"title": f"{split}: real and predicted classes"},
        )
        run.log({f"{split}/confusion": chart})
    if shown.predictions:
        columns, lines = records_table(redact(list(shown.predictions)))
        run.log({"test/predictions": wandb.Table(columns=list(columns), data=lines, allow_mixed_types=True)})
    for kind, place in shown.files.items():
        if kind == "report" and place.suffix == ".html":
            run.log({"report": wandb.Html(place.read_text(encoding="utf-8"), inject=False)})
        run.log_artifact(make_artifact(kind, place, f"{kind}-{name}", shown.scores))


def make_artifact(kind: str, place: Path, name: str, scores: Mapping[str, float]) -> Any:
    """A file or folder of the run as an artifact, with the scores as its metadata."""
    import wandb  # as above

    found = wandb.Artifact(name, type="model" if kind == "export" else kind, metadata=dict(scores))
    found.add_dir(str(place)) if place.is_dir() else found.add_file(str(place))
    return found


def make_histogram(values: Tensor) -> Any:
    """How the finite values of a tensor spread."""
    import wandb  # as above

    flat = values.detach().float().flatten()
    counts, edges = np.histogram(flat[flat.isfinite()].cpu().numpy(), bins=HISTOGRAM_BINS)
    return wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
