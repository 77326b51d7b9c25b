"""The learning rate over the steps of a run, as the schedule will give it."""

from collections.abc import Callable
from dataclasses import dataclass

from tunelab.optim.schedule import warmup_steps
from tunelab.optimizing import follows_validation, make_schedule
from tunelab.settings import Run

POINTS = 300  # of a curve; every step where there are fewer


@dataclass(frozen=True)
class Curve:
    """Rates of a run.

    Attributes:
        steps: Optimizer steps.
        rates: The rate of each.
        warmup: Steps of warm-up.
        follows: Whether validations will lower it, so that only the rise is known.
    """

    steps: list[int]
    rates: list[float]
    warmup: int
    follows: bool


def curve(settings: Run, total: int) -> Curve:
    """The rate at evenly spaced steps, the corners of the warm-up among them."""
    factor: Callable[[int], float] = make_schedule(settings.scheduler, total)
    warmup = warmup_steps(float(settings.scheduler.get("warmup", 0)), total)
    last = max(0, total - 1)
    evenly = {round(place * last / (POINTS - 1)) for place in range(POINTS)} if total > POINTS else set(range(total))
    steps = sorted(evenly | {min(last, max(0, warmup - 1))})
    rates = [settings.lr * factor(step) for step in steps]
    return Curve(steps, rates, warmup, follows_validation(settings.scheduler))
