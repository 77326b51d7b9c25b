"""Learning-rate schedules in several phases: pure functions from a step to a factor in [0, 1] on the peak rate.

Steps, warm-up and total as in `schedule.py`.
"""

from math import sqrt

from tunelab.optim.schedule import between, half_cosine, progress, warmup_steps


def cosine_restarts(step: int, *, total: int, warmup: float = 0, floor: float = 0.0, cycles: int = 3) -> float:
    """Rise linearly, then fall along half a cosine `cycles` times, each from the peak (Loshchilov and Hutter, 2017)."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    if step >= total:
        return floor
    span = total - rise
    return between(floor, half_cosine((step - rise) * cycles % span / span))  # whole numbers: a restart is never missed


def wsd(
    step: int, *, total: int, warmup: float = 0, decay: float = 0.2, floor: float = 0.0, shape: str = "linear"
) -> float:
    """Warm up, stay at the peak, decay at the end (Hu et al. 2024, MiniCPM).

    Args:
        step: Optimizer step.
        total: Steps of the run.
        warmup: Steps of rise, a share of the run below 1.
        decay: Steps of the fall, a share of the run below 1.
        floor: Share of the peak that is left at the end.
        shape: Of the fall: "linear", "cosine" or "sqrt" (steep at first, one minus a root).
    """
    rise, fall = warmup_steps(warmup, total), max(warmup_steps(decay, total), 1 if decay else 0)
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, max(0.0, (step - max(rise, total - fall)) / max(1, min(fall, total - rise))))
    height = {"linear": 1 - done, "cosine": half_cosine(done), "sqrt": 1 - sqrt(done)}[shape]
    return between(floor, height)


def stepwise(
    step: int, *, total: int, warmup: float = 0, every: float = 0.25, factor: float = 0.5, floor: float = 0.0
) -> float:
    """Rise linearly, then multiply by `factor` after every `every` steps (a share of the run below 1), to `floor`."""
    rise = warmup_steps(warmup, total)
    if step < rise:
        return (step + 1) / rise
    return max(floor, float(factor ** ((step - rise) // max(1, warmup_steps(every, total)))))


def one_cycle(step: int, *, total: int, warmup: float = 0.3, start: float = 0.04, floor: float = 0.0) -> float:
    """Rise from `start` to the peak, then fall to `floor` at step `total`, both along half a cosine.

    After Smith and Topin 2018, as PyTorch's `OneCycleLR`; the rate alone: momentum stays as it is.
    """
    rise = warmup_steps(warmup, total)
    if step < rise:
        return 1 - (1 - start) * half_cosine(step / rise)
    return between(floor, half_cosine(progress(step, total=total, warmup=rise)[1]))
