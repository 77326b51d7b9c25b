"""What cannot be honoured between an optimizer, its schedule and the rest of a run."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any


def optimizer_faults(values: Mapping[str, Any]) -> list[str]:
    """Faults of the blocks `optimizer` and `scheduler`, all of them.

    Args:
        values: Settings as plain values, by name of block.
    """
    optimizer, scheduler = values.get("optimizer", {}), values.get("scheduler", {})
    kind = str(optimizer.get("_target_", "")).rpartition(".")[2]
    faults = pair_faults(optimizer) + idle_faults(values) + curve_faults(scheduler) + share_faults(scheduler)
    faults += uncountable("optimizer", optimizer, ("ns_steps", "max_iter", "history_size"))
    if kind == "SGD" and optimizer.get("nesterov") and not optimizer.get("momentum"):
        faults.append(
            "optimizer.nesterov=true looks ahead along a momentum, and optimizer.momentum is 0; set one of them"
        )
    if kind == "LBFGS":
        faults += line_search_faults(values)
    return faults


def idle_faults(values: Mapping[str, Any]) -> list[str]:
    """Settings of the optimizer's own that its parameter groups would overrule, at times or always."""
    optimizer, lr, faults = values.get("optimizer", {}), values.get("lr"), []
    if (own := optimizer.get("weight_decay")) is not None:
        faults.append(
            f"optimizer.weight_decay={own} would change nothing: matrices decay by regularization.weight_decay, and "
            f"vectors not at all; set regularization.weight_decay={own}"
        )
    if lr is not None and isinstance(own := optimizer.get("lr"), int | float) and own != lr:
        faults.append(
            f"optimizer.lr={own} beside lr={lr}: rates by layer, records and searches go by lr alone; set lr={own}"
        )
    return faults


def uncountable(block: str, values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Counts that are no whole numbers."""
    return [
        f"{block}.{name}={value} counts, so it must be a whole number"
        for name in names
        if isinstance(value := values.get(name), float) and not value.is_integer()
    ]


def curve_faults(scheduler: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule beyond the range of each number."""
    faults = uncountable("scheduler", scheduler, ("cycles", "patience", "cooldown"))
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
        for name in ("warmup", "decay", "every", "timescale")
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
