"""Gradual unfreezing: from which step on each parameter learns.

A parameter that does not learn yet gets no gradient, so neither the step nor decay nor momentum moves it, and the
optimizer keeps no memory of it.  Nothing is switched on the way: the answer is a function of the step alone, so a
resumed run and several devices agree on it.
"""

from collections.abc import Mapping

from tunelab.optim.schedule import warmup_steps


def first_steps(
    depth: Mapping[str, int], *, layers: int, every: float | None, at: Mapping[str, float], total: int
) -> dict[str, int]:
    """The step, counted from 0, at which each parameter starts to learn.

    What stands above the layers starts at once, then one layer more joins every so many steps, from the top down
    (Howard and Ruder 2018, ULMFiT).  Where nothing above the layers learns, the top layer that does starts at once.

    Args:
        depth: Depth of each parameter that learns at some time.
        layers: How many layers there are; greater depths stand above them.
        every: Steps from one layer to the next, a share of the run below 1; None opens all at once.
        at: Part of a name to the step (a share of the run below 1) from which parameters with it learn.
        total: Steps of the run.
    """
    order = sorted({min(found, layers + 1) for found in depth.values()}, reverse=True)
    gap = 0 if every is None else max(1, warmup_steps(every, total))
    steps = {name: gap * order.index(min(found, layers + 1)) for name, found in depth.items()}
    for part, start in at.items():
        steps |= {name: warmup_steps(start, total) for name in steps if part in name}
    return steps
