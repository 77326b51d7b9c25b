"""The block `regularization`, typed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class RegularizationConfig:
    """What is asked for; every value here is neutral, as in conf/regularization/none.yaml.

    Attributes:
        weight_decay: Pull of matrices towards zero, per step, times the rate (L2).
        l1: The same pull for every weight, however small it is.
        max_norm: Longest row of a linear layer; 0 sets no bound.
        dropout: Replaces every dropout rate of the model; None keeps them.
        attention_dropout: Replaces those on attention weights; None keeps them, or follows `dropout`.
        stochastic_depth: Probability that the last layer is skipped.
        neftune: Size of the noise on input embeddings.
        mixout: Probability that a weight is swapped with the pretrained one.
        label_smoothing: Probability moved from the right answer to all of them.
        rdrop: Weight of the divergence between two passes.
        ema: Decay of the moving average of the weights; 0 keeps none.
        swa_start: Share of the run after which weights are averaged; 1 never averages.
    """

    weight_decay: float = 0.0
    l1: float = 0.0
    max_norm: float = 0.0
    dropout: float | None = None
    attention_dropout: float | None = None
    stochastic_depth: float = 0.0
    neftune: float = 0.0
    mixout: float = 0.0
    label_smoothing: float = 0.0
    rdrop: float = 0.0
    ema: float = 0.0
    swa_start: float = 1.0

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> "RegularizationConfig":
        """The block as it was given; a key that is absent or null is neutral."""
        names = [entry.name for entry in fields(cls)]
        return cls(**{name: float(block[name]) for name in names if block.get(name) is not None})
