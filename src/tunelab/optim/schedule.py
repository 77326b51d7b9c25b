"""Learning-rate schedules that glide: pure functions from a step to a factor in [0, 1] on the peak rate.

All counts are optimizer steps.  Step 0 already trains: under warm-up its factor is 1 / warmup, not 0.  Steps 0 to
`total` - 1 are taken, and the end of every curve is `total`: the last step leaves the rate there, and none is wasted at
a floor of 0.  Schedules in several phases stand in `phases.py`.

    1.0 |    .-~-.
        |  .'     `.
  floor |.'         `-.___
        0  warmup       total
"""

from math import cos, pi, sqrt


def warmup_steps(warmup: float, total: int) -> int:
    """Steps of warm-up: `warmup` itself from 1 on, a share of `total` below 1."""
    return round(warmup * total) if warmup < 1 else int(warmup)


def progress(step: int, *, total: int, warmup: float) -> tuple[float, float]:
    """How far a step is: the warm-up's factor, 1 once it is over, and the share of the decay done, in [0, 1]."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise, 0.0
    return 1.0, min(1.0, (step - rise) / max(1, total - rise))


def between(floor: float, height: float) -> float:
    """The factor at a height in [0, 1] above the floor."""
    return floor + (1 - floor) * height


def half_cosine(done: float) -> float:
    """1 at the start, 0 at the end, level at both."""
    return (1 + cos(pi * done)) / 2


def constant(step: int, *, total: int, warmup: float = 0) -> float:
    """Rise linearly, then stay at the peak."""
    return progress(step, total=total, warmup=warmup)[0]


def linear(step: int, *, total: int, warmup: float = 0, floor: float = 0.0) -> float:
    """Rise linearly, then fall linearly to `floor` at step `total`."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * between(floor, 1 - done)


def cosine(step: int, *, total: int, warmup: float = 0, floor: float = 0.0) -> float:
    """Rise linearly, then fall along half a cosine to `floor` at step `total` (Loshchilov and Hutter, 2017)."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * between(floor, half_cosine(done))


def polynomial(step: int, *, total: int, warmup: float = 0, floor: float = 0.0, power: float = 2.0) -> float:
    """Rise linearly, then fall to `floor` at step `total` along a power of what is left; power 1 is `linear`."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * between(floor, (1 - done) ** power)


def exponential(step: int, *, total: int, warmup: float = 0, floor: float = 0.01) -> float:
    """Rise linearly, then lose the same share at every step, so that `floor` (above 0) is left at step `total`."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * float(floor**done)


def inverse_sqrt(
    step: int, *, total: int, warmup: float = 0, floor: float = 0.0, timescale: float | None = None
) -> float:
    """Rise linearly, then fall with one over the root of the step (Vaswani et al. 2017; Zhai et al. 2022).

    The fall does not depend on `total`, so a longer run goes on where a shorter one was.

    Args:
        step: Optimizer step.
        total: Steps of the run; used for shares only.
        warmup: Steps of rise, a share of the run below 1.
        floor: Share of the peak below which it never falls.
        timescale: Steps (a share of the run below 1) until the factor is 1 / root 2 are as many; None takes those of
            the warm-up, which is the schedule of the Transformer.
    """
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    scale = max(1, rise if timescale is None else warmup_steps(timescale, total))
    return max(floor, 1 / sqrt(1 + (step - rise) / scale))
