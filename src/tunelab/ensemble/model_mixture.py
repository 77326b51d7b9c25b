"""Several causal language models as one module: the next token follows the mean of their distributions.

Shape letters: K members, B sequences, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


def mix_log_probs(log_probs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The logarithm of the weighted mean of distributions, each (..., V) as log-probabilities."""
    shares = torch.tensor(list(weights), dtype=log_probs[0].dtype).clamp(min=1e-30).log()
    return torch.stack([one + share for one, share in zip(log_probs, shares, strict=True)]).logsumexp(0)


class MixtureCache:
    """Keys and values of the past, of every member."""

    def __init__(self, caches: list[DynamicCache]) -> None:
        self.caches = caches

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows of the batch."""
        for cache in self.caches:
            cache.batch_select_indices(indices)


class MixtureModel(nn.Module):
    """A mixture of models, with the interface of one model that `tunelab.generation.decode` needs.

    Args:
        members: Models that share a tokenizer; the first one's config has the length of the context.
        weights: Of each, together 1.
    """

    _is_stateful = False

    def __init__(self, members: Sequence[PreTrainedModel], weights: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.weights = list(weights)
        self.models: list[Any] = list(members)
        self.config = members[0].config
        self.ordinary = [model.config._attn_implementation for model in members]

    @property
    def device(self) -> torch.device:
        """The device of the first member, and with it of the others."""
        device: torch.device = self.models[0].device
        return device

    @property
    def _supports_sdpa(self) -> bool:
        return all(model._supports_sdpa for model in self.models)

    def get_input_embeddings(self) -> nn.Module:
        """Those of the first member."""
        embeddings: nn.Module = self.models[0].get_input_embeddings()
        return embeddings

    def set_attn_implementation(self, name: str) -> None:
        """Set it for every member; the name that the first one had gives each its own back."""
        for model, own in zip(self.models, self.ordinary, strict=True):
            model.set_attn_implementation(own if name == self.ordinary[0] else name)

    def new_cache(self) -> MixtureCache:
        """An empty past for every member."""
        return MixtureCache([DynamicCache(config=model.config.get_text_config()) for model in self.models])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: MixtureCache,
        use_cache: bool = True,
        position_ids: Tensor | None = None,
    ) -> CausalLMOutput:
        """Log-probabilities of the next token, (B, 1, V), as logits."""
        log_probs = []
        for model, cache in zip(self.models, past_key_values.caches, strict=True):
            known = signature(model.forward).parameters
            extra: dict[str, Any] = {"position_ids": position_ids} if "position_ids" in known else {}
            extra |= {"logits_to_keep": 1} if "logits_to_keep" in known else {}
            logits: Tensor = model(
                input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=use_cache, **extra
            ).logits[:, -1:]
            log_probs.append(logits.float().log_softmax(-1))
        mixed: Any = mix_log_probs(log_probs, self.weights)
        return CausalLMOutput(logits=mixed)
