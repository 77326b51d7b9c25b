"""The output head sees supervised positions only: the same loss and gradient at half the work.

Shape letters: B sequences, T tokens, N supervised positions, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.models.probe import agree


class SupervisedHead:
    """Shows the output head only the positions that teach.

    It works through a hook before the head, so bias, scale, soft-cap and adapters stay the model's own code.
    A probe on the very model decides whether that is exact; if not, all positions are scored and then selected.

    Args:
        model: A causal language model; it keeps working as before outside `logits`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.keep: Tensor | None = None
        head = model.get_output_embeddings()
        head.register_forward_pre_hook(self._select)
        tokens = torch.arange(12, device=model.device).view(2, 6)
        keep = tokens % 5 < 2
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
        self.exact = True
        self.exact = agree(model, lambda: model(**inputs).logits[keep], lambda: self.logits(model, keep, **inputs))

    def _select(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return None if self.keep is None else (args[0][self.keep], *args[1:])

    def logits(self, model: PreTrainedModel, keep: Tensor, **inputs: Any) -> Tensor:
        """Logits (N, V) at the positions where `keep` (B, T) holds."""
        self.keep = keep if self.exact else None
        try:
            logits: Tensor = model(**inputs).logits
        finally:
            self.keep = None
        return logits if self.exact else logits[keep]
