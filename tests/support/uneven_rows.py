"""A tiny model and rows of uneven length, some of which teach nothing."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tunelab.data.examples import IGNORE, Example

ROWS = 27


def uneven_examples() -> list[Example]:
    """Lengths from 3 to 40, prompts of uneven share, one row in ten that teaches nothing."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for row in range(ROWS):
        length = int(torch.randint(3, 41, (), generator=draw))
        ids = torch.randint(1, 50, (length,), generator=draw).tolist()
        masked = length if row % 10 == 3 else int(torch.randint(1, length, (), generator=draw))
        labels = [IGNORE] * masked + ids[masked:]
        found.append(Example(ids, labels, sum(label != IGNORE for label in labels[1:]), row))
    return found


def tiny_model() -> PreTrainedModel:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, max_position_embeddings=64, **size))
