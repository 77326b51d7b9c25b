"""Soft prompts: a few learned vectors that stand before every text (Lester, Al-Rfou and Constant 2021).

They are token ids beyond the vocabulary, which the input embedding knows and the output head does not.  So layout,
positions, masks and the cache of generation need nothing new.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunelab.data.examples import IGNORE, Example
from tunelab.data.token_store import map_examples


class SoftPrompt(nn.Module):
    """An input embedding with learned rows of its own above those of the vocabulary.

    Args:
        base: The embedding of the model.
        length: P.
    """

    def __init__(self, base: nn.Embedding, length: int) -> None:
        super().__init__()
        self.base = base
        rows = torch.randint(base.num_embeddings, (length,))  # they start as words, which beats noise
        with torch.no_grad():
            self.prompt = nn.Parameter(base(rows.to(base.weight.device)).clone())

    @property
    def weight(self) -> Tensor:
        """The table of the vocabulary, (V, H)."""
        return self.base.weight

    @property
    def ids(self) -> list[int]:
        """The token ids of the prompt."""
        return list(range(self.base.num_embeddings, self.base.num_embeddings + len(self.prompt)))

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (B, T, H) of ids (B, T)."""
        size = self.base.num_embeddings
        words: Tensor = self.base(ids.clamp(max=size - 1))
        soft = self.prompt[(ids - size).clamp(min=0)].to(words.dtype)
        return torch.where((ids >= size)[..., None], soft, words)


def add_soft_prompt(model: PreTrainedModel, length: int) -> None:
    """Give the model's input embedding a soft prompt; nothing else learns."""
    model.requires_grad_(False)
    base = model.get_input_embeddings()
    assert isinstance(base, nn.Embedding)
    model.set_input_embeddings(SoftPrompt(base, length))


def find_soft_prompt(model: PreTrainedModel) -> SoftPrompt | None:
    """The soft prompt of a model, if it has one."""
    embeddings = model.get_input_embeddings()
    return embeddings if isinstance(embeddings, SoftPrompt) else None


def soft_prompt_ids(model: PreTrainedModel) -> list[int]:
    """The ids that stand before every text; none without a soft prompt."""
    prompt = find_soft_prompt(model)
    return prompt.ids if prompt else []


def prepend_soft_prompt(examples: Sequence[Example], ids: Sequence[int]) -> Sequence[Example]:
    """The examples of a causal task behind a prompt that is not learned as text; what is on disk stays there."""

    def behind(example: Example, place: int) -> Example:
        assert isinstance(example.target, list)
        target = [*[IGNORE] * len(ids), *(int(label) for label in example.target)]
        return replace(example, ids=[*ids, *example.ids], target=target)

    return map_examples(behind, examples) if ids else examples
