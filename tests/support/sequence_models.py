"""Tiny random models of every family, and tokenizers without files."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

WORDS = "good bad film plot the a is was not very long short actor scene 1 2 3".split()
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "</s>"]
SIZE = len(WORDS) + len(SPECIAL)

ENCODERS = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "roberta": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "type_vocab_size": 1,
    },
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DECODERS = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {**SMALL, "num_key_value_heads": 1},
    "gpt_neox": SMALL,
    "opt": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "word_embed_proj_dim": 16,
    },
    "qwen3": {**SMALL, "num_key_value_heads": 1, "head_dim": 8},
}

MakeModel = Callable[..., PreTrainedModel]
MakeTokenizer = Callable[..., PreTrainedTokenizerBase]


@pytest.fixture
def make_model() -> MakeModel:
    """A random model of a family in evaluation mode; extra keywords go to its config."""

    def make(family: str, **options: object) -> PreTrainedModel:
        torch.manual_seed(0)
        own = ENCODERS.get(family) or DECODERS[family]
        ids = {"pad_token_id": 1 if family in ENCODERS else None, "bos_token_id": None, "eos_token_id": 4}
        config = AutoConfig.for_model(family, vocab_size=SIZE, **{**own, **ids, **options})
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():  # logits far enough apart for a wrong token to show
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def make_tokenizer() -> MakeTokenizer:
    """A word tokenizer: like BERT's with separators and padding, or like GPT-2's with only an end of text."""

    def make(*, decoder: bool = False) -> PreTrainedTokenizerBase:
        words = {word: place for place, word in enumerate([*SPECIAL, *WORDS])}
        core = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        if decoder:
            return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="</s>")
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            unk_token="[UNK]",
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )

    return make
