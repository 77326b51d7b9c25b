"""`find=lr`: a range test on the first steps of the run, with everything that is set but the schedule."""

import math
from typing import Any

import lightning as L
from typing_extensions import override

from tunelab.analysis.number_format import format_number
from tunelab.assemble import Prepared, make_module
from tunelab.data.examples import Step
from tunelab.errors import ConfigError, Diverged
from tunelab.finders.finding import Finding
from tunelab.finders.range_test import RangeTest, Watch, ended, rising
from tunelab.inspection.trial_steps import take_steps
from tunelab.inspection.untouched import as_it_was
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.chart_page import Figure, Section
from tunelab.report.charts.lines import line_chart

STEPS = 100
DECADES = 3  # powers of ten below and above the rate that is set


class Losses(L.Callback):
    """Notes the loss of each step, and stops when it has left."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.watch, self.left = Watch(), False

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.left = self.watch.left(self.losses[-1])
        trainer.should_stop = trainer.should_stop or self.left


def find_rate(prepared: Prepared, *, steps: int = STEPS, decades: float = DECADES) -> Finding:
    """Try rates, a step each; model and random numbers are afterwards as they were.

    Args:
        prepared: What the run works with.
        steps: Rates that are tried.
        decades: How far, as powers of ten, they go below and above `lr`.
    """
    return told(try_rates(prepared, steps=steps, decades=decades), prepared.settings.lr)


def try_rates(prepared: Prepared, *, steps: int, decades: float) -> RangeTest:
    """The range test itself."""
    rates, seen = rising(prepared.settings.lr, decades, steps), Losses()
    with as_it_was(prepared.model):
        module = make_module(prepared, prepared.model)
        module.schedule = lambda step: rates[min(step, steps - 1)] / prepared.settings.lr
        try:
            take_steps(prepared, module, steps, [seen])
        except Diverged:
            seen.left = True
            seen.losses.append(math.inf)  # of the step that was refused
    return ended(rates, seen.losses, left=seen.left)


def told(found: RangeTest, lr: float) -> Finding:
    """The finding in words and as a curve."""
    if not found.rates:
        raise ConfigError("find=lr: the loss of the very first step is not finite; look at the data and at model.init")
    best = found.suggestion
    ends = f"from {format_number(found.rates[0])} to {format_number(found.rates[-1])}"
    said = [f"{len(found.rates)} rates were tried, a step each, {ends}"]
    if best is None or found.fastest is None:
        said.append("at none of them the loss fell by 2 % of itself: raise batch_size, or move the window by lr=")
    else:
        fastest, lowest = found.rates[found.fastest], found.rates[found.lowest]
        said.append(f"the loss falls fastest at {fastest:.2g} and is lowest at {lowest:.2g}: half-way is {best:.2g}")
        said.append(f"lr is {lr:.2g} now")
    if found.diverged is None:
        said.append(
            f"it diverged at no rate: the window ends at {format_number(found.rates[-1])}, a higher lr= moves it up"
        )
    else:
        said.append(f"it diverged at {found.diverged:.2g}")
    numbers = {"rates": found.rates, "losses": found.losses, "smooth": found.smooth, "diverged": found.diverged}
    return Finding("lr", best, said, numbers, [curve(found, best)])


def curve(found: RangeTest, best: float | None) -> Section:
    """The losses over the rates."""
    marks = [ReferenceLine(best, f"suggestion {best:.2g}")] if best is not None else []
    marks += [ReferenceLine(found.diverged, f"diverged at {found.diverged:.2g}")] if found.diverged is not None else []
    series = [Series("smoothed", found.rates, found.smooth), Series("training loss", found.rates, found.losses)]
    drawn = line_chart(
        series,
        title="Loss at rising rates",
        x_label="learning rate",
        y_label="training loss",
        x_scale="log",
        marks=marks,
    )
    return Figure(drawn, "Each point is the loss before a step at that rate; steps follow each other.")
