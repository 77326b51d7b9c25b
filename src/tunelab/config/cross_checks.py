"""Faults between settings: blocks that contradict each other, and arguments that a class refuses.  Nothing is
loaded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from inspect import signature
from math import isfinite
from typing import Any

import torch
from torch.nn import Parameter

from tunelab.config import instantiate
from tunelab.config.regularization_config import RegularizationConfig
from tunelab.errors import first_line
from tunelab.models.mup import ADAM_LIKE, has_decoupled_decay

ConfigBlock = Mapping[str, Any]


def model_faults(values: Mapping[str, Any]) -> list[str]:
    """Every fault of `values["model"]`, with what the other blocks ask of it."""
    model = values.get("model", {})
    if model.get("kind") == "scratch":
        faults = scratch_size_faults(model)
        return faults + (mup_faults(values) if model.get("mup") else [])
    return layer_choice_faults(model, values.get("adapter", {}))


def scratch_size_faults(model: ConfigBlock) -> list[str]:
    """Sizes of `model=scratch` that make no network."""
    if empty := [name for name, value in model.items() if value is None and name not in ("mlp", "initial_std")]:
        return [
            f"model.{name}=null: a network of your own needs a value; see conf/model/scratch.yaml" for name in empty
        ]
    wanted = {
        name: model.get(name) for name in ("depth", "width", "heads", "context", "mlp", "base_width", "base_head")
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    faults = [
        f"model.{name}={value} must be a whole number of at least 1"
        for name, value in wanted.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if faults:
        return faults
    width, heads = int(model["width"]), int(model["heads"])
    if width % (2 * heads):
        near = 2 * heads * max(1, round(width / (2 * heads)))
        faults.append(
            f"model.width={width} must be a multiple of twice model.heads={heads} (each head rotates pairs of units); "
            f"try model.width={near}"
        )
    return faults


def mup_faults(values: Mapping[str, Any]) -> list[str]:
    """What `model.mup=true` cannot go with."""
    kind, task = values.get("adapter", {}).get("kind"), values.get("data", {}).get("task")
    optimizer = str(values.get("optimizer", {}).get("_target_"))
    norm = values["model"].get("normalisation")
    faults = []
    if norm != "rmsnorm":
        faults.append(
            f"model.mup=true with model.normalisation={norm}: the architecture with the multipliers that muP needs "
            "(Granite) has rmsnorm only; take model.normalisation=rmsnorm"
        )
    if task not in ("instruction", "preference"):
        faults.append(
            f"model.mup=true with data.task={task}: the architecture with the multipliers that muP needs has no head "
            "for labels; take model.mup=false"
        )
    if kind != "full":
        faults.append(
            f"model.mup=true with adapter.kind={kind}: the rules are for a network that learns as a whole; "
            "take adapter=full"
        )
    if optimizer.rpartition(".")[2] not in ADAM_LIKE:
        faults.append(
            f"model.mup=true with {optimizer}: how a rate follows the width depends on the optimizer, and the rule "
            f"here is that of {', '.join(ADAM_LIKE)}; take optimizer=adamw"
        )
    elif (decay := values.get("regularization", {}).get("weight_decay")) and not has_decoupled_decay(
        values["optimizer"]
    ):
        faults.append(
            f"model.mup=true with {optimizer} and regularization.weight_decay={decay}: this decay is a part of the "
            "gradient, and outweighs it the more the wider the model; take optimizer=adamw, or "
            "regularization.weight_decay=0"
        )
    return faults


def layer_choice_faults(model: ConfigBlock, adapter: ConfigBlock) -> list[str]:
    """Wishes about the layers of a pretrained model that contradict each other."""
    depth, keep, fresh = model.get("depth"), model.get("keep"), model.get("reinit_top") or 0
    faults = [
        f"model.{name}={value} must be a whole number of layers"
        for name, value in (("depth", depth), ("reinit_top", fresh))
        if isinstance(value, float) and not value.is_integer()
    ]
    if keep is not None and depth is None:
        faults.append(f"model.keep={keep} says which layers stay, but not how many; give model.depth=N")
    if isinstance(depth, int) and isinstance(fresh, int) and fresh > depth:
        faults.append(f"model.reinit_top={fresh} is more than the model.depth={depth} layers that stay")
    if adapter.get("kind") == "qlora" and (depth is not None or fresh):
        name = "model.depth" if depth is not None else "model.reinit_top"
        faults.append(f"{name} with adapter=qlora: weights packed in 4 bit stay where they are; take adapter=lora")
    return faults


def optimizer_faults(values: Mapping[str, Any]) -> list[str]:
    """Faults of the blocks `optimizer` and `scheduler`, all of them.

    Args:
        values: Settings as plain values, by name of block.
    """
    optimizer, scheduler = values.get("optimizer", {}), values.get("scheduler", {})
    kind = str(optimizer.get("_target_", "")).rpartition(".")[2]
    faults = (
        betas_faults(optimizer)
        + overridden_argument_faults(values)
        + schedule_faults(scheduler)
        + schedule_length_faults(scheduler)
    )
    faults += whole_number_faults("optimizer", optimizer, ("ns_steps", "max_iter", "history_size"))
    if kind == "SGD" and optimizer.get("nesterov") and not optimizer.get("momentum"):
        faults.append(
            "optimizer.nesterov=true looks ahead along a momentum, and optimizer.momentum is 0; set one of them"
        )
    if kind == "LBFGS":
        faults += line_search_faults(values)
    return faults


def overridden_argument_faults(values: Mapping[str, Any]) -> list[str]:
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


def whole_number_faults(block: str, values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Counts that are no whole numbers."""
    return [
        f"{block}.{name}={value} counts, so it must be a whole number"
        for name in names
        if isinstance(value := values.get(name), float) and not value.is_integer()
    ]


def schedule_faults(scheduler: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule beyond the range of each number."""
    faults = whole_number_faults("scheduler", scheduler, ("cycles", "patience", "cooldown"))
    if str(scheduler.get("_target_", "")).endswith(".exponential") and scheduler.get("floor") == 0:
        faults.append(
            "scheduler.floor=0: a rate that loses the same share at every step never gets to 0; set "
            "scheduler.floor=0.001, or take scheduler=linear"
        )
    return faults


def betas_faults(optimizer: Mapping[str, Any]) -> list[str]:
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


def schedule_length_faults(scheduler: Mapping[str, Any]) -> list[str]:
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


def optimizer_argument_faults(block: Mapping[str, Any]) -> list[str]:
    """What an optimizer's class says against its settings.

    Args:
        block: Of the optimizer, without faults as `build.faults_of` tells them.
    """
    target = str(block["_target_"])
    if instantiate.missing_package(target):
        return []
    matrix, vector = Parameter(torch.zeros(2, 2)), Parameter(torch.zeros(2))
    given = {"hidden": [matrix]} if "hidden" in signature(instantiate.import_target(target)).parameters else {}
    try:
        instantiate.make_factory(block, **given)([{"params": [one], "weight_decay": 0.0} for one in (matrix, vector)])
    except (TypeError, ValueError) as fault:
        return [f"optimizer: {first_line(fault)}; see the comments in its file under conf/optimizer/"]
    return []


UNSUPPORTED_METHODS = {  # task and method: why, and what to do
    ("regression", "label_smoothing"): "numbers have no labels to smooth; take regularization=dropout",
    ("preference", "label_smoothing"): "a pair has no labels; data.label_smoothing is its counterpart",
    ("preference", "rdrop"): "a pair has two probabilities, not a distribution to compare; take regularization=dropout",
}


def regularization_faults(values: Mapping[str, Any]) -> list[str]:
    """Faults of the block `regularization`, all of them; out-of-range values are told elsewhere.

    Args:
        values: Settings as plain values, by name of block.
    """
    block = values.get("regularization", {})
    known = [entry.name for entry in fields(RegularizationConfig)]
    faults = []
    for name in (str(name) for name in block if name not in known):
        near = get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        faults.append(f"regularization.{name} is no setting; {hint}")
    try:
        wanted = RegularizationConfig.of(block)
    except (TypeError, ValueError):
        return faults  # told as no number
    data = values.get("data", {})
    for (task, name), reason in UNSUPPORTED_METHODS.items():
        if data.get("task") == task and getattr(wanted, name):
            faults.append(f"regularization.{name}={getattr(wanted, name):g} with data.task={task}: {reason}")
    if data.get("task") == "classification" and wanted.label_smoothing and data.get("label_smoothing"):
        faults.append(
            f"regularization.label_smoothing={wanted.label_smoothing:g} and data.label_smoothing="
            f"{data['label_smoothing']} are the same thing; set one of them to 0"
        )
    if wanted.ema and wanted.swa_start < 1:
        faults.append(
            f"regularization.ema={wanted.ema:g} and regularization.swa_start={wanted.swa_start:g} are two averages of "
            "the same weights, and one is exported; set ema=0 or swa_start=1"
        )
    return faults + mixout_faults(wanted, values)


def mixout_faults(wanted: RegularizationConfig, values: Mapping[str, Any]) -> list[str]:
    """What mixout cannot go with: it needs pretrained weights, and layers that read their weights as they are."""
    if not wanted.mixout:
        return []
    model, kind = values.get("model", {}), values.get("adapter", {}).get("kind")
    faults = []
    if model.get("kind") == "scratch" or model.get("weights") == "random":
        faults.append(
            f"regularization.mixout={wanted.mixout:g} falls back to pretrained weights, and this model starts from "
            "random ones; take regularization=dropout"
        )
    if kind in ("head", "layernorm", "prompt"):
        faults.append(
            f"regularization.mixout={wanted.mixout:g} with adapter.kind={kind}: no pretrained matrix of a linear layer "
            "learns; take adapter=full or adapter=lora"
        )
    return faults


def finder_faults(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with looking for a value here.

    Args:
        values: The settings by their top-level names.
    """
    wanted = values.get("find")
    if wanted is None:
        return []
    faults = []
    if values.get("resume") is not None:
        faults.append(f"find={wanted} looks at a run before it starts, so it cannot go with resume; leave one out")
    if values.get("trial", {}).get("id") is not None:
        faults.append(f"find={wanted} trains nothing that a search could compare; leave out -m or find")
    return faults
