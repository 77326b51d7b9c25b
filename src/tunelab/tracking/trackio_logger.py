"""The Trackio logger: a local dashboard that needs neither an account nor a network."""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from tunelab.language.translation import translate
from tunelab.runs.redact import redact
from tunelab.tracking.base import FaultTolerantLogger, RunResults, confusion_tables, records_table, scores_table


class TrackioRun(FaultTolerantLogger):
    """One run in Trackio's own store, which `trackio show` opens; TRACKIO_DIR moves it.

    Args:
        project: Runs of one project share a dashboard.
        name: Name of the run; a resumed run keeps it.
        group: Runs of one group are listed together; None for none.
        run_config: The resolved config of the run; secrets are taken out.
        resume: Whether the run is resumed.
        tell: Receives the one line that says how to open the dashboard.
    """

    def __init__(
        self,
        *,
        project: str,
        name: str,
        group: str | None,
        run_config: Mapping[str, Any],
        resume: bool,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__("Trackio")
        self._run: Any = None
        import trackio  # an extra, and a second of imports

        with redirect_stdout(io.StringIO()):  # its banner, which would stand in the middle of ours
            self._run = trackio.init(
                project=redact(project),
                name=redact(name),
                group=redact(group),
                config=redact(run_config),
                resume="allow" if resume else "never",
                embed=False,
                auto_log_gpu=False,  # train/memory has it at the steps that it belongs to
                auto_log_cpu=False,
            )
        tell(translate("Trackio: open with: trackio show --project {project}", project=redact(project)))

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._run is not None:
            # its page orders groups by name: without the epoch, and with layers inside `train`, the losses come first
            curves = {name: value for name, value in metrics.items() if name != "epoch"}
            named = {f"train/{name}" if name.startswith("layers/") else name: value for name, value in curves.items()}
            self.attempt("log", lambda: self._run.log(named, step=step))

    @rank_zero_only
    def log_results(self, results: RunResults) -> None:
        """Log final scores, confusion matrices and predictions as tables: a curve of one point says nothing."""
        import trackio  # as above

        tables = {"scores": scores_table(results.scores)} if results.scores else {}
        tables |= confusion_tables(results)
        if results.predictions:
            columns, rows = records_table(redact(list(results.predictions)))
            tables["test/predictions"] = columns, [list(row) for row in rows]
        logged = {name: trackio.Table(columns, lines) for name, (columns, lines) in tables.items()}
        if self._run is not None:
            self.attempt("log results", lambda: self._run.log(logged))

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls this after each of its loops; `finish` closes the run."""

    @rank_zero_only
    def finish(self, status: str) -> None:
        """Send what is left and close the run."""
        if self._run is not None:
            import trackio  # as above

            with redirect_stdout(io.StringIO()):
                self.attempt("finish", trackio.finish)  # the run's own `finish` would be called again when Python ends
            self._run = None
