"""Ranges and choices of the settings, by dotted name."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

from tunelab.data.formats import FORMATS

RANGES: Mapping[str, tuple[float, float]] = {  # smallest and largest legal value
    "lr": (0, 100),
    "batch_size": (1, 2**20),
    "micro_tokens": (1, 2**30),
    "max_epochs": (1, 10**6),
    "max_steps": (1, 10**12),
    "seed": (0, 2**63 - 1),
    "regularization.weight_decay": (0, 10),
    "regularization.dropout": (0, 0.99),
    "regularization.attention_dropout": (0, 0.99),
    "regularization.stochastic_depth": (0, 0.99),
    "regularization.l1": (0, 10**6),
    "regularization.max_norm": (0, 10**9),
    "regularization.neftune": (0, 10**4),
    "regularization.mixout": (0, 0.99),
    "regularization.label_smoothing": (0, 0.99),
    "regularization.rdrop": (0, 10**4),
    "regularization.ema": (0, 0.999999),
    "regularization.swa_start": (0, 1),
    "adapter.rank": (1, 4096),
    "adapter.alpha": (0, 10**6),
    "adapter.dropout": (0, 0.99),
    "adapter.layers": (1, 10**4),
    "adapter.length": (1, 4096),
    "adapter.lr_scale": (0, 10**6),
    "adapter.layer_decay": (0, 1),
    "adapter.head_lr": (0, 100),
    "adapter.unfreeze_every": (0, 10**9),
    "model.depth": (1, 10**4),
    "model.reinit_top": (0, 10**4),
    "model.initial_std": (0, 1),
    "model.rope_base": (1, 10**9),
    "scheduler.warmup": (0, 10**9),
    "scheduler.floor": (0, 1),
    "scheduler.power": (0, 100),
    "scheduler.timescale": (0, 10**9),
    "scheduler.cycles": (1, 10**6),
    "scheduler.decay": (0, 10**9),
    "scheduler.every": (0, 10**9),
    "scheduler.factor": (0, 1),
    "scheduler.start": (0, 1),
    "scheduler.patience": (0, 10**6),
    "scheduler.min_delta": (0, 10**9),
    "scheduler.cooldown": (0, 10**6),
    "optimizer.momentum": (0, 0.999999),
    "optimizer.ns_steps": (1, 99),
    "optimizer.max_iter": (1, 1000),
    "optimizer.history_size": (1, 1000),
    "optimizer.tolerance_grad": (0, 1),
    "optimizer.tolerance_change": (0, 1),
    "trainer.gradient_clip_val": (0, 10**9),
    "trainer.log_every_n_steps": (1, 10**9),
    "callbacks.patience": (1, 10**6),
    "callbacks.save_every": (0, 10**9),
    "callbacks.snapshots": (0, 1000),
    "callbacks.nonfinite_limit": (0, 10**9),
    "callbacks.rollback_every": (1, 10**9),
    "callbacks.gap_rows": (0, 10**9),
    "data.workers": (0, 256),
    "data.limit": (1, 2**40),
    "data.max_tokens": (1, 2**30),
    "data.in_memory": (0, 10**9),
    "data.beta": (0, 1000),
    "data.label_smoothing": (0, 0.49),
    "data.split.validation": (0, 0.9),
    "data.split.test": (0, 0.9),
    "data.near_duplicates": (0.3, 1),
    "cv.folds": (2, 10**4),
    "cv.fold": (0, 10**4),
    "eval.batch_size": (1, 2**20),
    "eval.max_new_tokens": (1, 2**17),
    "eval.generate_rows": (0, 2**40),
    "eval.test_rows": (0, 2**40),
}
CHOICES: Mapping[str, tuple[Any, ...]] = {
    "mode": ("auto", "min", "max"),
    "find": ("lr", "micro_tokens", "batch_size"),
    "scheduler.shape": ("linear", "cosine", "sqrt"),
    "eval.generate": ("auto", True, False),
    "eval.base": ("auto", True, False),
    "callbacks.on_nonfinite": ("stop", "skip", "rollback"),
    "adapter.kind": ("full", "lora", "dora", "rslora", "qlora", "head", "top_layers", "layernorm", "prompt"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.precision": ("auto", "32-true", "32", "bf16-mixed", "bf16", "64-true"),
    "data.task": ("instruction", "classification", "regression", "preference"),
    "data.loss": ("sigmoid", "ipo"),
    "data.too_long": ("drop", "truncate_prompt", "truncate_answer", "error"),
    "data.format": ("auto", *FORMATS),
    "data.quoting": ("auto", "minimal", "none"),
    "data.on_bad": ("error", "skip"),
    "data.packing": ("auto", True, False),
    "data.train_on": ("answers", "last_answer", "all"),
    "model.attention": ("auto", "sdpa", "eager", "flex_attention", "flash_attention_2"),
    "model.size": ("tiny", "base"),
    "model.kind": ("pretrained", "scratch"),
    "model.weights": ("pretrained", "random"),
    "model.keep": ("bottom", "top", "spread"),
    "model.activation": ("silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "sigmoid", "tanh", "linear"),
    "model.normalisation": ("rmsnorm", "layernorm"),
    "model.init": ("normal", "xavier", "kaiming", "depth_scaled"),
    "model.mup": (True, False),
}
POSITIVE_KEYS = {
    "lr",
    "data.beta",
    "model.initial_std",
    *(f"scheduler.{name}" for name in ("power", "timescale", "every", "factor")),
    *(f"adapter.{name}" for name in ("alpha", "lr_scale", "layer_decay", "head_lr", "unfreeze_every")),
}


def choice_fault(name: str, value: Any) -> str | None:
    """What is wrong with a value that must be one of a few; None if nothing is (or nothing was given)."""
    legal = CHOICES[name]
    if value is None or value in legal:
        return None
    near = get_close_matches(str(value), [str(choice) for choice in legal], 1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(map(str, legal))}"
    return f"{name}={value} is unknown; {hint}"


def range_fault(name: str, value: Any, low: float, high: float) -> str | None:
    """What is wrong with a number; None if nothing is (or nothing was given)."""
    if value is None or value == "???":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return f"{name}={value} is not a number"
    if value < low or value > high or (name in POSITIVE_KEYS and value <= 0):
        least = "above 0" if name in POSITIVE_KEYS else f"at least {low:.15g}"
        return f"{name}={value} is out of range; it must be {least} and at most {high:.15g}"
    return None
