"""Learning-rate schedules: pure functions from a step to a factor in [0, 1] on the peak rate.

All counts are optimizer steps.  Step 0 already trains: under warm-up its factor is 1 / warmup, not 0.  Steps 0 to
`total` - 1 are taken, and the end of every curve is `total`: the last step leaves the rate there, and none is wasted
at a `min_lr_ratio` of 0.

    1.0 |    .-~-.
        |  .'     `.
      0 |.'         `-.___ min_lr_ratio
        0  warmup       total
"""

from collections.abc import Callable
from math import cos, isfinite, pi, sqrt
from typing import Protocol, TypeVar, runtime_checkable

from tunelab.config.schema import RunConfig
from tunelab.language.translation import translate

Schedule = TypeVar("Schedule", bound=Callable[..., float])


def refuses(config_faults: Callable[[RunConfig], list[str]]) -> Callable[[Schedule], Schedule]:
    """A decorator that gives a schedule a check of its own: the faults it finds in the settings of a run."""

    def attach(schedule: Schedule) -> Schedule:
        vars(schedule)["config_faults"] = config_faults
        return schedule

    return attach


def warmup_steps(warmup: float, total: int) -> int:
    """Steps of warm-up: `warmup` itself from 1 on, a share of `total` below 1."""
    return round(warmup * total) if warmup < 1 else int(warmup)


def schedule_progress(step: int, *, total: int, warmup: float) -> tuple[float, float]:
    """The progress of a step: the warm-up's factor, 1 once it is over, and the share of the decay done, in [0, 1]."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise, 0.0
    return 1.0, min(1.0, (step - rise) / max(1, total - rise))


def scale_above_floor(min_lr_ratio: float, height: float) -> float:
    """The factor at a height in [0, 1] above the floor."""
    return min_lr_ratio + (1 - min_lr_ratio) * height


def half_cosine(done: float) -> float:
    """1 at the start, 0 at the end, level at both."""
    return (1 + cos(pi * done)) / 2


def constant(step: int, *, total: int, warmup: float = 0) -> float:
    """Rise linearly, then stay at the peak."""
    return schedule_progress(step, total=total, warmup=warmup)[0]


def linear(step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.0) -> float:
    """Rise linearly, then fall linearly to `min_lr_ratio` at step `total`."""
    rise, done = schedule_progress(step, total=total, warmup=warmup)
    return rise * scale_above_floor(min_lr_ratio, 1 - done)


def cosine(step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.0) -> float:
    """Rise linearly, then fall along half a cosine to `min_lr_ratio` at step `total` (Loshchilov and Hutter, 2017)."""
    rise, done = schedule_progress(step, total=total, warmup=warmup)
    return rise * scale_above_floor(min_lr_ratio, half_cosine(done))


def polynomial(step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.0, power: float = 2.0) -> float:
    """Rise linearly, then fall to `min_lr_ratio` at step `total` along a power of what is left; power 1 is `linear`."""
    rise, done = schedule_progress(step, total=total, warmup=warmup)
    return rise * scale_above_floor(min_lr_ratio, (1 - done) ** power)


def exponential_faults(run: RunConfig) -> list[str]:
    """A `min_lr_ratio` of 0, which no constant factor leads to."""
    if run.scheduler.arguments.get("min_lr_ratio") != 0:
        return []
    return [
        translate(
            "scheduler.min_lr_ratio=0: a rate that loses the same share at every step never gets "
            "to 0; set scheduler.min_lr_ratio=0.001, or take scheduler=linear"
        )
    ]


@refuses(exponential_faults)
def exponential(step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.01) -> float:
    """Rise linearly, then lose the same share at every step, so that `min_lr_ratio` (above 0) is left at the end."""
    rise, done = schedule_progress(step, total=total, warmup=warmup)
    return rise * float(min_lr_ratio**done)


def inverse_sqrt(
    step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.0, timescale: float | None = None
) -> float:
    """Rise linearly, then fall with one over the root of the step (Vaswani et al. 2017; Zhai et al. 2022).

    The fall does not depend on `total`, so a longer run goes on where a shorter one was.

    Args:
        step: Optimizer step.
        total: Steps of the run; used for shares only.
        warmup: Steps of rise, a share of the run below 1.
        min_lr_ratio: Share of the peak below which it never falls.
        timescale: Steps (a share of the run below 1) until the factor is 1 / root 2 are as many; None takes those of
            the warm-up, which is the schedule of the Transformer.
    """
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    scale = max(1, rise if timescale is None else warmup_steps(timescale, total))
    return max(min_lr_ratio, 1 / sqrt(1 + (step - rise) / scale))


def cosine_restarts(step: int, *, total: int, warmup: float = 0, min_lr_ratio: float = 0.0, cycles: int = 3) -> float:
    """Rise linearly, then fall along half a cosine `cycles` times, each from the peak (Loshchilov and Hutter, 2017)."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    if step >= total:
        return min_lr_ratio
    span = total - rise
    return scale_above_floor(
        min_lr_ratio, half_cosine((step - rise) * cycles % span / span)
    )  # whole numbers: a restart is never missed


def wsd(
    step: int, *, total: int, warmup: float = 0, decay: float = 0.2, min_lr_ratio: float = 0.0, shape: str = "linear"
) -> float:
    """Warm up, stay at the peak, decay at the end (Hu et al. 2024, MiniCPM).

    Args:
        step: Optimizer step.
        total: Steps of the run.
        warmup: Steps of rise, a share of the run below 1.
        decay: Steps of the fall, a share of the run below 1.
        min_lr_ratio: Share of the peak that is left at the end.
        shape: Of the fall: "linear", "cosine" or "sqrt" (steep at first, one minus a root).
    """
    rise, fall = warmup_steps(warmup, total), max(warmup_steps(decay, total), 1 if decay else 0)
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, max(0.0, (step - max(rise, total - fall)) / max(1, min(fall, total - rise))))
    height = {"linear": 1 - done, "cosine": half_cosine(done), "sqrt": 1 - sqrt(done)}[shape]
    return scale_above_floor(min_lr_ratio, height)


def stepwise(
    step: int, *, total: int, warmup: float = 0, every: float = 0.25, factor: float = 0.5, min_lr_ratio: float = 0.0
) -> float:
    """Rise linearly, then multiply by `factor` after each `every` steps (below 1: a share of the run)."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    return max(min_lr_ratio, float(factor ** ((step - rise) // max(1, warmup_steps(every, total)))))


def one_cycle(step: int, *, total: int, warmup: float = 0.3, start: float = 0.04, min_lr_ratio: float = 0.0) -> float:
    """Rise from `start` to the peak, then fall to `min_lr_ratio` at step `total`, both along half a cosine.

    After Smith and Topin 2018, as PyTorch's `OneCycleLR`; the rate alone: momentum stays as it is.
    """
    rise = warmup_steps(warmup, total)
    if step < rise:
        return 1 - (1 - start) * half_cosine(step / rise)
    return scale_above_floor(min_lr_ratio, half_cosine(schedule_progress(step, total=total, warmup=rise)[1]))


@runtime_checkable
class ValidationSchedule(Protocol):
    """A schedule that follows the validations; an object, so that its memory is saved with a run."""

    def __call__(self, step: int) -> float:
        """The factor at an optimizer step."""

    def observe(self, score: float, mode: str) -> bool:
        """Take note of a validation; whether the rate falls."""


class Plateau:
    """Factor on the peak rate: a linear rise, then as much as the validations have left of it.

    It follows `torch.optim.lr_scheduler.ReduceLROnPlateau` with absolute thresholds.  All it knows are numbers in
    its attributes, so that PyTorch's `LambdaLR` saves and restores it with a run.

    Args:
        total: Steps of the run; used for shares only.
        warmup: Steps of rise, a share of the run below 1.
        factor: What the rate is multiplied by when the score stands still.
        patience: Validations without improvement that are borne.
        min_delta: An improvement smaller than this does not count.
        cooldown: Validations after a fall that do not count as without improvement.
        min_lr_ratio: Share of the peak that is always left.

    Attributes:
        share: What the validations have left of the peak.
        best: Best score so far; None before the first.
        bad: Validations since then.
        cooling: Validations that are still forgiven.
    """

    def __init__(
        self,
        *,
        total: int,
        warmup: float = 0,
        factor: float = 0.5,
        patience: int = 1,
        min_delta: float = 0.0,
        cooldown: int = 0,
        min_lr_ratio: float = 0.0,
    ) -> None:
        self.rise = warmup_steps(warmup, total)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.cooldown, self.min_lr_ratio = cooldown, min_lr_ratio
        self.share, self.bad, self.cooling = 1.0, 0, 0
        self.best: float | None = None

    def __call__(self, step: int) -> float:
        """The factor at an optimizer step."""
        return self.share * min(1.0, (step + 1) / max(1, self.rise))

    def observe(self, score: float, mode: str) -> bool:
        """Take note of a validation.

        Args:
            score: The monitored score; one that is not finite is no improvement.
            mode: "min" or "max": which way it is better.

        Returns:
            Whether the rate falls.
        """
        gain = float("inf") if self.best is None else (self.best - score if mode == "min" else score - self.best)
        if isfinite(score) and gain > self.min_delta:
            self.best, self.bad = score, 0
        else:
            self.bad += 1
        if self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad <= self.patience:
            return False
        self.bad, self.cooling = 0, self.cooldown
        before, self.share = self.share, max(self.min_lr_ratio, self.share * self.factor)
        return self.share < before
