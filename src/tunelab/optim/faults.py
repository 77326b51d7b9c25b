"""What cannot be honoured between an optimizer, its schedule and the rest of a run."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from tunelab.optim.schedule import warmup_steps


def optimizer_faults(values: Mapping[str, Any]) -> list[str]:
    """Faults of the blocks `optimizer` and `scheduler`, all of them.

    Args:
        values: Settings as plain values, by name of block.
    """
    optimizer, scheduler = values.get("optimizer", {}), values.get("scheduler", {})
    kind = str(optimizer.get("_target_", "")).rpartition(".")[2]
    faults = pair_faults(optimizer) + curve_faults(scheduler) + share_faults(scheduler)
    if kind == "SGD" and optimizer.get("nesterov") and not optimizer.get("momentum"):
        faults.append(
            "optimizer.nesterov=true looks ahead along a momentum, and optimizer.momentum is 0; set one of them"
        )
    if kind == "LBFGS":
        faults += line_search_faults(values)
    return faults


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
        notes.append(
            f"scheduler.warmup={rise} steps is longer than the run of {total}: the rate never gets beyond "
            f"{total / rise:.0%} of its peak"
        )
    return notes


def curve_faults(scheduler: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule beyond the range of each number."""
    faults = [
        f"scheduler.{name}={value} counts, so it must be a whole number"
        for name in ("cycles", "patience", "cooldown")
        if isinstance(value := scheduler.get(name), float) and not value.is_integer()
    ]
    if str(scheduler.get("_target_", "")).endswith(".exponential") and scheduler.get("floor") == 0:
        faults.append(
            "scheduler.floor=0: a rate that loses the same share at every step never gets to 0; set "
            "scheduler.floor=0.001, or take scheduler=linear"
        )
    return faults


def pair_faults(optimizer: Mapping[str, Any]) -> list[str]:
    """What is wrong with `betas`: shares of memory, each from 0 up to, but not, 1."""
    betas = optimizer.get("betas")
    if betas is None:
        return []
    numbers = isinstance(betas, list) and all(isinstance(b, int | float) and not isinstance(b, bool) for b in betas)
    if not numbers or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        return [f"optimizer.betas={betas} must be two numbers, each at least 0 and below 1, such as [0.9, 0.999]"]
    if str(optimizer.get("_target_", "")).endswith("ScheduleFreeAdamW") and betas[0] == 0:
        return ["optimizer.betas: the first is the average's share in schedule_free_adamw; it must be above 0"]
    return []


def share_faults(scheduler: Mapping[str, Any]) -> list[str]:
    """What is wrong with lengths given as a share of the run below 1, and as steps from 1 on."""
    return [
        f"scheduler.{name}={length} is neither a share of the run (below 1) nor a number of steps (a whole number)"
        for name in ("warmup", "decay", "every")
        if isinstance(length := scheduler.get(name), float) and isfinite(length) and length > 1 and length % 1
    ]


def line_search_faults(values: Mapping[str, Any]) -> list[str]:
    """What L-BFGS cannot do: its line search compares the loss with the gradient, and has one rate."""
    faults = []
    if clip := values.get("trainer", {}).get("gradient_clip_val"):
        faults.append(
            f"trainer.gradient_clip_val={clip}: a clipped gradient no longer fits the loss, and the line search of "
            "optimizer=lbfgs compares the two; set trainer.gradient_clip_val=0"
        )
    adapter = values.get("adapter", {})
    if adapter.get("layer_decay", 1) != 1 or adapter.get("head_lr") is not None or values.get("model", {}).get("mup"):
        faults.append(
            "optimizer=lbfgs has one rate for all parameters; leave adapter.layer_decay at 1, adapter.head_lr at null "
            "and model.mup at false"
        )
    return faults
