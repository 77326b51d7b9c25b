"""Progress on the console: one live bar on a terminal or in a notebook, or lines in a log; the same words in each."""

import time
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from typing_extensions import override

from tunelab.errors import visible_text
from tunelab.language.translation import message, translate
from tunelab.runs.console import format_score, is_main_process, is_notebook, say
from tunelab.runs.terminal import LiveLines, has_colours, is_terminal, join_fields, terminal_width, text_width
from tunelab.training.callbacks.checkpointing import BestCheckpoint

_LINE_SHARE = 0.1  # of the run between two lines ...
_LINE_SECONDS = 10.0  # ... but neither farther apart than this nor closer than a tenth of it
_BAR_SECONDS = 0.2  # between two drawings of a bar
ECHO_WIDTH = 3  # columns left free at the end of a live line: the terminal echoes ^C there
_NARROWEST_BAR = 10  # columns of the bar itself
BEST_SO_FAR = message("best so far")
_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"


def progress_callback(monitor: str | None = None) -> Callback:
    """A live bar on a terminal or in a notebook, else plain lines that read well in a log file.

    Args:
        monitor: The score that picks the best checkpoint, which is shown as it is and at its best; None shows none.
    """
    if is_notebook():
        return NotebookProgress(monitor)
    return TerminalProgress(monitor) if is_terminal() else PlainProgress(monitor)


class RunClock:
    """The time left of a run, from its steps and its validations so far, each at its own pace."""

    def __init__(self) -> None:
        self.begin(0, 0, 0)

    def begin(self, done: int, total: int, interval: float) -> None:
        """Start the clock.

        Args:
            done: Steps taken by earlier sessions.
            total: Steps of the whole run; 0 if it has no end.
            interval: Steps between two validations; 0 without any.
        """
        self.first, self.total, self.interval = done, total, interval
        self.started_at = time.monotonic()
        self.paused_at: float | None = None
        self.validation_seconds = self.validations = 0.0

    def pause(self) -> None:
        """A validation begins."""
        self.paused_at = time.monotonic()

    def resume(self) -> None:
        """A validation has ended."""
        if self.paused_at is not None:
            self.validation_seconds += time.monotonic() - self.paused_at
            self.validations += 1
        self.paused_at = None

    def seconds_left(self, done: int) -> float | None:
        """Seconds until the last step and the validations before it are done; None while nothing is known."""
        if not self.total or done <= self.first:
            return None
        now = time.monotonic() if self.paused_at is None else self.paused_at
        pace = (now - self.started_at - self.validation_seconds) / (done - self.first)
        left = max(0, self.total - done)
        validations = left / self.interval if self.interval else 0.0
        return pace * left + validations * self.validation_seconds / max(1.0, self.validations)


class PlainProgress(Callback):
    """Prints a line about every tenth of the run or every ten seconds, and the scores of every validation.

    A line is built from what is known already, so a GPU is never waited for.

    Args:
        monitor: The score that picks the best checkpoint; None for none.
        share: Share of the run between two lines.
        seconds: Most seconds between two lines.
    """

    def __init__(
        self, monitor: str | None = None, *, share: float = _LINE_SHARE, seconds: float = _LINE_SECONDS
    ) -> None:
        super().__init__()
        self._monitor, self._share, self._seconds = monitor, share, seconds
        self._clock = RunClock()
        self._line_at, self._line_step = 0.0, 0
        self._last_score: float | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = _steps_done(trainer)
        self._clock.begin(done, _steps_planned(trainer), _validation_interval(trainer))
        self._line_at, self._line_step = time.monotonic(), done

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, done, total = time.monotonic(), _steps_done(trainer), self._clock.total
        waited = now - self._line_at
        due = done - self._line_step >= self._share * total and waited >= self._seconds / 10
        if not (due or waited >= self._seconds or done == total):
            return
        self._line_at, self._line_step = now, done
        say("  ".join(self.fields(trainer, pl_module)))

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.pause()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.resume()
        if trainer.sanity_checking or trainer.state.fn != "fit":  # the best checkpoint's scores have a table at the end
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if scores:
            best = _best_checkpoint(trainer)
            self.print_validation(trainer, scores, best)
            self._last_score = scores.get(self._monitor or "", self._last_score)

    def print_validation(self, trainer: Trainer, scores: Mapping[str, float], best: BestCheckpoint | None) -> None:
        """Print one line with every score of a validation, the monitored one first."""
        say("  ".join(validation_fields(trainer, scores, best)))

    def fields(self, trainer: Trainer, module: LightningModule) -> list[str]:
        """Where a run stands: step, epoch, loss, rate, speed, the monitored score and its best, the time left."""
        done, total = _steps_done(trainer), self._clock.total
        step = translate("step {step}", step=f"{done:,}/{total:,}" if total else f"{done:,}")
        seconds = self._clock.seconds_left(done)
        time_left = [] if seconds is None else [translate("{time} left", time=_format_duration(seconds))]
        return [step, *self.learning_fields(trainer, module), *time_left]

    def learning_fields(self, trainer: Trainer, module: LightningModule) -> list[str]:
        """Epoch, loss, learning rate, tokens per second, the monitored score and its best so far."""
        epoch, epochs = trainer.current_epoch + 1, self._epochs(trainer)
        number = f"{min(epoch, epochs)}/{epochs}" if epochs else str(epoch)
        fields = [translate("epoch {epoch}", epoch=number)]
        fields += step_fields(trainer, module)
        if self._last_score is not None:
            fields.append(f"{self._monitor} {format_score(self._last_score)}")
        best = _best_checkpoint(trainer)
        if best is not None and best.score is not None:
            fields.append(translate("best {score}", score=format_score(best.score)))
        return fields

    def _epochs(self, trainer: Trainer) -> int:
        """Epochs that the run will begin; 0 if it has no end."""
        steps = float(trainer.num_training_batches)
        return ceil(self._clock.total / steps) if self._clock.total and 0 < steps < float("inf") else 0


class TerminalProgress(PlainProgress):
    """One bar over the whole run at the end of a terminal, as wide as that is; validations are printed above it."""

    def __init__(self, monitor: str | None = None) -> None:
        super().__init__(monitor)
        self._live = LiveLines()
        self._drawn_at = 0.0
        self._status: list[str] = []

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._drawn_at < _BAR_SECONDS and self._status and _steps_done(trainer) != self._clock.total:
            return
        self._status = self.fields(trainer, pl_module)
        self._draw(_steps_done(trainer) / self._clock.total if self._clock.total else None, self._status)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            of_best = translate("best checkpoint on the validation split")
            what, status = (translate("validation"), self._status) if trainer.state.fn == "fit" else (of_best, [])
            self._draw_evaluation(what, batch_idx + 1, sum(trainer.num_val_batches), status)

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        is_base = getattr(pl_module, "test_prefix", "test") == "base"
        what = translate("model before training on the test split" if is_base else "best checkpoint on the test split")
        self._draw_evaluation(what, batch_idx + 1, sum(trainer.num_test_batches))

    @override
    def print_validation(self, trainer: Trainer, scores: Mapping[str, float], best: BestCheckpoint | None) -> None:
        fields = validation_fields(trainer, scores, best)
        width, line = terminal_width() or 80, [fields[0]]
        for place, field in enumerate(fields[1:], 1):
            rest = 0 if place + 1 == len(fields) else 5
            if sum(map(text_width, line)) + 2 * len(line) + text_width(field) + rest > width:
                line.append("...")  # the others are in metrics.csv
                break
            line.append(field)
        say("  ".join(line), good=translate(BEST_SO_FAR))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._live.close()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._live.clear()
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            self._live.close()

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._live.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._live.close()

    def _draw_evaluation(self, what: str, done: int, total: float, status: Sequence[str] = ()) -> None:
        if time.monotonic() - self._drawn_at >= _BAR_SECONDS or done == 1:
            of = f"/{int(total):,}" if isfinite(total) else ""
            batch = translate("{what}: batch {batch}", what=what, batch=f"{done:,}{of}")
            self._draw(done / total if total else None, [batch, *status])

    def _draw(self, share: float | None, fields: Sequence[str]) -> None:
        self._drawn_at = time.monotonic()
        if is_main_process():
            self._live.draw(bar_lines(share, fields, (terminal_width() or 80) - ECHO_WIDTH, coloured=has_colours()))


class NotebookProgress(PlainProgress):
    """One bar over the whole run, a widget where ipywidgets is installed, and a line for each validation."""

    def __init__(self, monitor: str | None = None) -> None:
        super().__init__(monitor)
        self._bar: Any = None
        self._read_at = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        total = self._clock.total or None
        self._bar = Tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = _steps_done(trainer)
        if time.monotonic() - self._read_at > _BAR_SECONDS or done == self._clock.total:
            self._bar.set_postfix_str("  ".join(self.learning_fields(trainer, pl_module)), refresh=False)
            self._read_at = time.monotonic()
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


def step_fields(trainer: Trainer, module: LightningModule) -> list[str]:
    """Loss of the last step, learning rate of the next one, tokens per second as far as they are measured."""
    known = {**trainer.logged_metrics, **trainer.callback_metrics}
    loss = getattr(module, "step_loss", None)  # a plain number by now; a logged one may still be on the device
    loss = float(known["train/loss"]) if loss is None and "train/loss" in known else loss
    fields = [] if loss is None else [translate("loss {loss}", loss=format_score(loss))]
    if trainer.optimizers:
        fields.append(f"lr {float(trainer.optimizers[0].param_groups[0]['lr']):.3g}")
    speed = known.get("train/tokens_per_second")
    return [*fields, *([] if speed is None else [translate("{speed} tokens/s", speed=format_score(float(speed)))])]


def validation_fields(trainer: Trainer, scores: Mapping[str, float], best: BestCheckpoint | None) -> list[str]:
    """The scores of a validation with their names: the monitored one first, and whether it is the best so far.

    Args:
        trainer: In training.
        scores: By name.
        best: The best checkpoint before this validation; None where none is kept.
    """
    fields = [translate("validation at step {step:,}", step=trainer.global_step)]
    monitor = best.monitor if best is not None else ""
    if best is not None and monitor in scores:
        value = scores[monitor]
        fields.append(f"{monitor} {format_score(value)}")
        if isfinite(value) and (best.score is None or best.is_better(value, best.score)):
            fields.append(translate(BEST_SO_FAR))
        elif best.score is not None:
            known = format_score(best.score)
            fields.append(translate("best {score} at step {step:,}", score=known, step=best.step))
    return [*fields, *(f"{name} {format_score(value)}" for name, value in scores.items() if name != monitor)]


def bar_lines(share: float | None, fields: Sequence[str], width: int, *, coloured: bool = False) -> list[str]:
    """The lines of a bar: as many fields beside it as the width holds, the others below.

    Args:
        share: How much is done, in [0, 1]; None draws no bar.
        fields: Texts that are never cut, unless one is wider than the terminal.
        width: Columns.
        coloured: Whether the part that is done is green.

    Example:
        >>> bar_lines(0.5, ["step 1/2", "loss 0.5"], 40)
        ['━━━━━━━━━━──────────  step 1/2  loss 0.5']
    """
    rest, count = [visible_text(field) for field in fields], 1
    room = width - (0 if share is None else _NARROWEST_BAR + 2)
    while count < len(rest) and text_width("  ".join(rest[: count + 1])) <= room:
        count += 1
    first = "  ".join(rest[:count])
    rows = [row[:width] for row in (first, *join_fields(rest[count:], width))]
    if share is None or text_width(first) > room:
        return rows
    length = width - text_width(first) - 2
    done = round(min(1.0, max(0.0, share)) * length)
    begun = f"{_GREEN}{'━' * done}{_PLAIN}" if coloured else "━" * done
    return [f"{begun}{'─' * (length - done)}  {first}", *rows[1:]]


def _best_checkpoint(trainer: Trainer) -> BestCheckpoint | None:
    callbacks: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009  # set by a connector, unknown to mypy
    return next((callback for callback in callbacks if isinstance(callback, BestCheckpoint)), None)


def _steps_done(trainer: Trainer) -> int:
    """Batches trained on, the current one included; a batch is one optimizer step here."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def _steps_planned(trainer: Trainer) -> int:
    """Steps of the whole run; 0 if it has no end."""
    planned = trainer.estimated_stepping_batches
    return int(planned) if planned != float("inf") else 0


def _validation_interval(trainer: Trainer) -> float:
    """Steps between two validations; 0 without any."""
    if not trainer.enable_validation:
        return 0.0
    between, epochs = float(trainer.val_check_batch or 0), trainer.check_val_every_n_epoch
    steps = float(trainer.num_training_batches)
    return between if epochs is None or between < steps else steps * epochs


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
