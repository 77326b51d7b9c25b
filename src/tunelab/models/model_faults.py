"""What is wrong with a `model` block, as far as the settings alone can tell it: nothing is read for it."""

from collections.abc import Mapping
from typing import Any

from tunelab.optim.width_scaling import ADAM_LIKE, decoupled

Block = Mapping[str, Any]


def model_faults(values: Mapping[str, Any]) -> list[str]:
    """Every fault of `values["model"]`, with what the other blocks ask of it."""
    model = values.get("model", {})
    if model.get("kind") == "scratch":
        faults = size_faults(model)
        return faults + (width_faults(values) if model.get("mup") else [])
    return cut_faults(model, values.get("adapter", {}))


def size_faults(model: Block) -> list[str]:
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


def width_faults(values: Mapping[str, Any]) -> list[str]:
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
    elif (decay := values.get("regularization", {}).get("weight_decay")) and not decoupled(values["optimizer"]):
        faults.append(
            f"model.mup=true with {optimizer} and regularization.weight_decay={decay}: this decay is a part of the "
            "gradient, and outweighs it the more the wider the model; take optimizer=adamw, or "
            "regularization.weight_decay=0"
        )
    return faults


def cut_faults(model: Block, adapter: Block) -> list[str]:
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
