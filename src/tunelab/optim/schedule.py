"""Learning-rate schedules: pure functions from a step to a factor in [0, 1] on the peak rate.

All counts are optimizer steps.  Step 0 already trains: under warm-up its factor is 1 / warmup, not 0.

    1.0 |    .-~-.
        |  .'     `.
  floor |.'         `-.___
        0  warmup       total
"""

from math import cos, pi


def warmup_steps(warmup: float, total: int) -> int:
    """Steps of warm-up: `warmup` itself from 1 on, a share of `total` below 1."""
    return round(warmup * total) if warmup < 1 else int(warmup)


def progress(step: int, *, total: int, warmup: float) -> tuple[float, float]:
    """How far a step is: the warm-up's factor, 1 once it is over, and the share of the decay done, in [0, 1]."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise, 0.0
    return 1.0, min(1.0, (step - rise) / max(1, total - rise))


def constant(step: int, *, total: int, warmup: float = 0) -> float:
    """Rise linearly, then stay at the peak."""
    return progress(step, total=total, warmup=warmup)[0]


def linear(step: int, *, total: int, warmup: float = 0, floor: float = 0.0) -> float:
    """Rise linearly, then fall linearly to `floor` at step `total`."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * (1 - (1 - floor) * done)


def cosine(step: int, *, total: int, warmup: float = 0, floor: float = 0.0) -> float:
    """Rise linearly, then fall along half a cosine to `floor` at step `total` (Loshchilov and Hutter, 2017)."""
    rise, done = progress(step, total=total, warmup=warmup)
    return rise * (floor + (1 - floor) * (1 + cos(pi * done)) / 2)
