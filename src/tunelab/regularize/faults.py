"""What cannot be honoured between the block `regularization` and the rest of a run, as far as settings can tell."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from tunelab.regularize.wanted import Wanted

MEANINGLESS = {  # task and method: why, and what to do
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
    known = [entry.name for entry in fields(Wanted)]
    faults = []
    for name in (str(name) for name in block if name not in known):
        near = get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        faults.append(f"regularization.{name} is no setting; {hint}")
    try:
        wanted = Wanted.of(block)
    except (TypeError, ValueError):
        return faults  # told as no number
    data = values.get("data", {})
    for (task, name), reason in MEANINGLESS.items():
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


def mixout_faults(wanted: Wanted, values: Mapping[str, Any]) -> list[str]:
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
