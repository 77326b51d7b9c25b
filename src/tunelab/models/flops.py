"""FLOPs of a training step, and the peak FLOPs per second of a device.

Counts follow PaLM (Chowdhery et al. 2022, appendix B): a multiply-add is two operations, nothing is counted for
recomputation, norms or look-ups, and only real tokens count, so padding lowers the utilisation.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

_PROBE_SIZE = {"cpu": 512, "cuda": 4096}  # rows of a square matrix: bound by arithmetic; on a CPU it fits the cache
_PROBE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class StepFlops:
    """Operations of one training step, as three factors.

    Attributes:
        per_token: Forward and backward of the body, for each real token.
        per_pair: Attention scores and their use, for each pair of positions of one sequence.
        per_output: The output head, for each supervised token; 0 where the head is part of the body.
    """

    per_token: float
    per_pair: float
    per_output: float

    def operations(self, *, tokens: float, pairs: float, outputs: float) -> float:
        """Operations of a step.

        Args:
            tokens: Real tokens.
            pairs: Squared length, summed over sequences.
            outputs: Positions whose loss is computed.
        """
        return self.per_token * tokens + self.per_pair * pairs + self.per_output * outputs


def step_flops(model: PreTrainedModel) -> StepFlops:
    """Read the cost of a step off a model.

    A weight costs 2 operations per token forward, 2 more where a gradient must pass through it and 2 more where it
    learns itself.  Frozen weights below the lowest learning one need no backward pass.  Embedding tables are
    look-ups; a tied output head costs what an untied one does.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    head_weights = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Module) else set()
    body = [weight for weight in model.parameters() if id(weight) not in tables | head_weights]
    below, passed, learning = _count_weights(body)
    size = max(1, below + passed + learning)
    through = 1 - below / size  # share of the body that the backward pass crosses
    config = model.config.get_text_config()
    layers, width = getattr(config, "num_hidden_layers", 0), getattr(config, "hidden_size", 0)
    if heads := getattr(config, "num_attention_heads", 0):
        width = heads * (getattr(config, "head_dim", None) or width // heads)
    head_size = sum(weight.numel() for weight in head.parameters()) if isinstance(head, nn.Module) else 0
    head_learns = isinstance(head, nn.Module) and any(weight.requires_grad for weight in head.parameters())
    return StepFlops(
        per_token=2.0 * below + 4.0 * passed + 6.0 * learning,
        per_pair=(4.0 + 8.0 * through) * layers * width,
        per_output=(6.0 if head_learns else 4.0) * head_size,
    )


def _count_weights(weights: Iterable[nn.Parameter]) -> tuple[int, int, int]:
    """Numbers of weights: frozen below the first learning one, frozen above it, learning."""
    below = passed = learning = 0
    for weight in weights:
        if weight.requires_grad:
            learning += weight.numel()
        elif learning:
            passed += weight.numel()
        else:
            below += weight.numel()
    return below, passed, learning


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations per second the device could do: the maker's figure for a GPU, else what a 50 ms probe reaches.

    None for a device that is neither in Lightning's table nor can be probed.
    """
    if device.type != "cpu":
        from lightning.fabric.utilities.throughput import get_available_flops  # all of Lightning, for a table

        if (known := get_available_flops(device, dtype)) is not None:
            return float(known)
    return _measure_peak(device, dtype) if device.type in _PROBE_SIZE else None


def _measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Best rate of a square matrix product within the probe's time, in operations per second."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    rows = _PROBE_SIZE[device.type]
    with torch.no_grad():
        left = torch.ones(rows, rows, dtype=dtype, device=device)  # ones: the seeded generators stay untouched
        torch.mm(left, left)
        wait()
        best, until = float("inf"), time.perf_counter() + _PROBE_SECONDS
        while (start := time.perf_counter()) < until:
            torch.mm(left, left)
            wait()
            best = min(best, time.perf_counter() - start)
    return float(2 * rows**3 / best)
