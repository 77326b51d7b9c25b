"""`find=lr`: a learning-rate range test on the first steps of the run, with everything that is set but the schedule.

Rates rise by a constant factor from step to step while the loss is watched (Smith 2017, "Cyclical Learning Rates for
Training Neural Networks").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import lightning as L
from typing_extensions import override

from tunelab.analysis.number_format import format_number
from tunelab.data.examples import Batch
from tunelab.errors import ConfigError, Diverged
from tunelab.language.translation import translate
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Chart
from tunelab.training.components import RunComponents, build_module
from tunelab.training.finders.base import FinderResult
from tunelab.training.trial_steps import preserve_model, run_trial_steps

LOSS_SMOOTHING = 0.8  # share of the running mean that a new loss leaves as it was
SMOOTHING_REACH = 5  # losses on either side that a point of the smoothed curve is the mean of
MIN_LOSS_FALL = 0.02  # share of the first loss that the curve must fall by, for a suggestion


@dataclass(frozen=True)
class RangeTest:
    """The result of a range test.

    Attributes:
        rates: Of each step that was taken.
        losses: Before each of those steps.
        diverged: The rate at which the loss left; None where it never did.
    """

    rates: list[float]
    losses: list[float]
    diverged: float | None

    @property
    def smoothed_losses(self) -> list[float]:
        """Losses, each the mean of those around it: it lags behind none of them, as a running mean would."""
        return [
            mean(self.losses[place - reach : place + reach + 1])
            for place in range(len(self.losses))
            for reach in [min(SMOOTHING_REACH, place, len(self.losses) - 1 - place)]
        ]

    @property
    def lowest(self) -> int:
        """The step with the lowest smoothed loss."""
        return self.smoothed_losses.index(min(self.smoothed_losses))

    @property
    def fastest(self) -> int | None:
        """The step at which the smoothed loss falls by the largest share of itself; None if it never falls.

        Looked for up to the lowest point: what comes after it is on the way out.
        """
        curve, lowest = self.smoothed_losses, self.lowest
        if lowest < 2 or curve[lowest] > curve[0] - MIN_LOSS_FALL * abs(curve[0]):
            return None
        changes = [(curve[at + 1] - curve[at - 1]) / max(abs(curve[at]), 1e-300) for at in range(1, lowest)]
        return 1 + changes.index(min(changes))

    @property
    def suggestion(self) -> float | None:
        """A rate half-way, by factors, from the fastest fall to the lowest point; None if the loss never falls.

        The first alone is low, since each step adds to what those before have gained; the second is near divergence.
        """
        return None if self.fastest is None else math.sqrt(self.rates[self.fastest] * self.rates[self.lowest])


def geometric_rates(middle: float, decades: float, count: int) -> list[float]:
    """`count` rates, each the same factor above the one before, `decades` powers of ten to either side of `middle`."""
    return [middle * 10 ** (decades * (2 * place / (count - 1) - 1)) for place in range(count)]


class DivergenceWatch:
    """Tells when a loss has left for good.

    It has when it is no finite number, or when its running mean is above the best so far by as much as that best, or
    by half of all that was gained, whichever is more.
    """

    def __init__(self) -> None:
        self.sum = self.weight = 0.0
        self.first: float | None = None
        self.best = math.inf

    def has_diverged(self, loss: float) -> bool:
        """Whether it has, by this loss."""
        if not math.isfinite(loss):
            return True
        self.sum, self.weight = (
            LOSS_SMOOTHING * self.sum + (1 - LOSS_SMOOTHING) * loss,
            LOSS_SMOOTHING * self.weight + (1 - LOSS_SMOOTHING),
        )
        now = self.sum / self.weight
        self.first = now if self.first is None else self.first
        self.best = min(self.best, now)
        return now > self.best + max(abs(self.best), (self.first - self.best) / 2)


def finish_range_test(rates: Sequence[float], losses: Sequence[float], *, left: bool) -> RangeTest:
    """A range test that has come to its end.

    Args:
        rates: Those that were to be tried.
        losses: Before each step that was taken, at `rates` from the first on; where the last one is not finite, that
            step was not taken.
        left: Whether the loss left: by the last one, which is what the step before has led to.
    """
    kept = [loss for loss in losses if math.isfinite(loss)]
    return RangeTest(list(rates[: len(kept)]), kept, rates[max(0, len(losses) - 2)] if left else None)


RANGE_STEPS = 100
RANGE_DECADES = 3  # powers of ten below and above the rate that is set


class LossRecorder(L.Callback):
    """Notes the loss of each step, and stops when it has left."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.divergence_watch, self.diverged = DivergenceWatch(), False

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.diverged = self.divergence_watch.has_diverged(self.losses[-1])
        trainer.should_stop = trainer.should_stop or self.diverged


def find_lr(components: RunComponents, *, steps: int = RANGE_STEPS, decades: float = RANGE_DECADES) -> FinderResult:
    """Try rates, a step each; model and random numbers are afterwards as they were.

    Args:
        components: What the run works with.
        steps: Rates that are tried.
        decades: How far, as powers of ten, they go below and above `lr`.
    """
    return lr_result(run_range_test(components, steps=steps, decades=decades), components.settings.lr)


def run_range_test(components: RunComponents, *, steps: int, decades: float) -> RangeTest:
    """The range test itself."""
    rates, seen = geometric_rates(components.settings.lr, decades, steps), LossRecorder()
    with preserve_model(components.model):
        module = build_module(components, components.model)
        module.schedule = lambda step: rates[min(step, steps - 1)] / components.settings.lr
        try:
            run_trial_steps(components, module, steps, [seen])
        except Diverged:
            seen.diverged = True
            seen.losses.append(math.inf)  # of the step that was refused
    return finish_range_test(rates, seen.losses, left=seen.diverged)


def lr_result(test: RangeTest, lr: float) -> FinderResult:
    """The finding in words and as a curve."""
    if not test.rates:
        raise ConfigError(
            translate("find=lr: the loss of the very first step is not finite; look at the data and at model.init")
        )
    best = test.suggestion
    ends = translate("from {low} to {high}", low=format_number(test.rates[0]), high=format_number(test.rates[-1]))
    reasons = [translate("{count} [rate was|rates were] tried, a step each, {ends}", count=len(test.rates), ends=ends)]
    if best is None or test.fastest is None:
        reasons.append(
            translate("at none of them the loss fell by 2 % of itself: raise batch_size, or move the window by lr=")
        )
    else:
        fastest, lowest = test.rates[test.fastest], test.rates[test.lowest]
        reasons.append(
            translate(
                "the loss falls fastest at {fastest:.2g} and is lowest at {lowest:.2g}: half-way is {best:.2g}",
                fastest=fastest,
                lowest=lowest,
                best=best,
            )
        )
        reasons.append(translate("lr is {lr:.2g} now", lr=lr))
    if test.diverged is None:
        reasons.append(
            translate(
                "it diverged at no rate: the window ends at {low}, a higher lr= moves it up",
                low=format_number(test.rates[-1]),
            )
        )
    else:
        reasons.append(translate("it diverged at {diverged:.2g}", diverged=test.diverged))
    numbers = {
        "rates": test.rates,
        "losses": test.losses,
        "smooth": test.smoothed_losses,
        "diverged": test.diverged,
    }
    return FinderResult("lr", best, reasons, numbers, [loss_figure(test, best)])


def loss_figure(test: RangeTest, best: float | None) -> Chart:
    """The losses over the rates."""
    marks = [ReferenceLine(best, translate("suggestion {best:.2g}", best=best))] if best is not None else []
    marks += (
        [ReferenceLine(test.diverged, translate("diverged at {diverged:.2g}", diverged=test.diverged))]
        if test.diverged is not None
        else []
    )
    series = [
        Series("smoothed", test.rates, test.smoothed_losses),
        Series(translate("training loss"), test.rates, test.losses),
    ]
    drawn = line_chart(
        series,
        title=translate("Loss at rising rates"),
        x_label=translate("learning rate"),
        y_label=translate("training loss"),
        x_scale="log",
        marks=marks,
    )
    return Chart(
        "losses", drawn, translate("Each point is the loss before a step at that rate; steps follow each other.")
    )
