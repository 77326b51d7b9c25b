"""Progress on the console: a bar on a terminal or in a notebook, or lines in a log."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from typing_extensions import override

from tunelab.runs.console import is_notebook, is_terminal, say

_LINE_SHARE = 0.1  # of the run between two lines ...
_LINE_SECONDS = 10.0  # ... but neither farther apart than this nor closer than a tenth of it
_BAR_SECONDS = 1.0  # between two readings of the loss beside a bar
_LINE_METRICS = ("train/loss", "train/tokens_per_second")


def progress_callback() -> Callback:
    """A live bar on a terminal or in a notebook, else plain lines that read well in a log file."""
    if is_notebook():
        return NotebookProgress()
    return RichProgressBar(leave=False) if is_terminal() else PlainProgress()


class PlainProgress(Callback):
    """Prints a line about every tenth of the run or every ten seconds, and the scores of every validation.

    A line is built from what was already logged, so a GPU is waited for only when a line is due.
    """

    def __init__(self, *, share: float = _LINE_SHARE, seconds: float = _LINE_SECONDS) -> None:
        super().__init__()
        self._share = share
        self._seconds = seconds
        self._started_at = 0.0
        self._first_step = 0
        self._line_at = 0.0
        self._line_step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started_at = self._line_at = time.monotonic()
        self._first_step = self._line_step = _steps_done(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, done, total = time.monotonic(), _steps_done(trainer), _steps_planned(trainer)
        waited = now - self._line_at
        due = done - self._line_step >= self._share * total and waited >= self._seconds / 10
        if not (due or waited >= self._seconds or done == total):
            return
        self._line_at, self._line_step = now, done
        pace = (now - self._started_at) / max(1, done - self._first_step)
        parts = [f"step {done:,}/{total:,}" if total else f"step {done:,}", f"epoch {trainer.current_epoch + 1}"]
        known = {**trainer.logged_metrics, **trainer.callback_metrics}
        parts += [f"{name} {_format_number(float(known[name]))}" for name in _LINE_METRICS if name in known]
        if total:
            parts.append(f"eta {_format_duration(pace * max(0, total - done))}")
        say("  ".join(parts))

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if scores:
            values = "  ".join(f"{name} {_format_number(value)}" for name, value in scores.items())
            # outside training it is the best checkpoint that is scored, whatever step training came to
            when = f"at step {trainer.global_step:,}" if trainer.state.fn == "fit" else "of the best"
            say(f"validation {when}  {values}")


class NotebookProgress(PlainProgress):
    """One bar over the whole run, a widget where ipywidgets is installed, and a line for each validation."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = _steps_planned(trainer) or None
        self._bar = Tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)
        self._started_at = time.monotonic()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, total = _steps_done(trainer), _steps_planned(trainer)
        if time.monotonic() - self._started_at > _BAR_SECONDS or done == total:  # the loss of a GPU is waited for
            known = {**trainer.logged_metrics, **trainer.callback_metrics}
            values = {name: _format_number(float(known[name])) for name in _LINE_METRICS if name in known}
            self._bar.set_postfix(values, refresh=False)
            self._started_at = time.monotonic()
        self._bar.update(done - self._bar.n)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _steps_done(trainer: Trainer) -> int:
    """Batches trained on, the current one included; a batch is one optimizer step here."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def _steps_planned(trainer: Trainer) -> int:
    """Steps of the whole run; 0 if it has no end."""
    planned = trainer.estimated_stepping_batches
    return int(planned) if planned != float("inf") else 0


def _format_number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"  # four digits either way


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
