"""What may surprise about an optimizer and its schedule in a run that can be done all the same."""

from collections.abc import Mapping
from typing import Any

from tunelab.optim.phases import one_cycle
from tunelab.optim.schedule import warmup_steps


def average_notes(optimizer: Mapping[str, Any], regularization: Mapping[str, Any]) -> list[str]:
    """What may surprise where two averages of the weights are asked for.

    Args:
        optimizer: Its block.
        regularization: Its block.
    """
    if not str(optimizer.get("_target_", "")).endswith("ScheduleFreeAdamW"):
        return []
    asked = [
        f"regularization.{name}={regularization[name]:g}"
        for name, neutral in (("ema", 0), ("swa_start", 1))
        if regularization.get(name, neutral) != neutral
    ]
    return [f"{one} is what is validated and exported, in place of schedule_free_adamw's own average" for one in asked]


def curve_notes(optimizer: Mapping[str, Any], scheduler: Mapping[str, Any], total: int) -> list[str]:
    """What may surprise in the rate of a run that can be done all the same.

    Args:
        optimizer: Its block.
        scheduler: Its block.
        total: Optimizer steps of the run.
    """
    kind, curve = (str(block.get("_target_", "")).rpartition(".")[2] for block in (optimizer, scheduler))
    notes = []
    if kind == "ScheduleFreeAdamW" and curve != "constant":
        notes.append(
            f"optimizer=schedule_free_adamw averages its steps, which takes the place of a falling rate; with "
            f"scheduler={curve} it gets both and may learn too little; scheduler=constant is its own"
        )
    if (rise := warmup_steps(float(scheduler.get("warmup") or 0), total)) > total:
        start = float(scheduler.get("start") or 0)
        top = one_cycle(total - 1, total=total, warmup=rise, start=start) if curve == "one_cycle" else total / rise
        notes.append(
            f"scheduler.warmup={rise} steps is longer than the run of {total}: the rate never gets beyond "
            f"{top:.0%} of its peak"
        )
        return notes
    span = total - rise
    if curve == "cosine_restarts" and 2 * (cycles := int(scheduler["cycles"])) > max(span, 2):
        notes.append(
            f"scheduler.cycles={cycles} in the {span} steps after the warm-up: a cycle needs two steps or more, else "
            f"its restart falls between steps and the curve is another one; take at most {max(1, span // 2)}"
        )
    if curve == "stepwise" and (every := warmup_steps(float(scheduler["every"]), total)) >= span:
        notes.append(f"scheduler.every={every} steps, and {span} come after the warm-up: the rate never drops")
    return notes
