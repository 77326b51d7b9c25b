"""Tests of what only a GPU can show; they are skipped, and say so, where there is none."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunelab.config.schema import PretrainedModelConfig
from tunelab.models.load_model import load_tokenizer

STARTER = PretrainedModelConfig(path="package:tunelab.starter/model")


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    """The GPU."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU here")
    torch.cuda.empty_cache()
    return torch.device("cuda")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a small model of random weights, as a pretrained one would lie there."""
    tokenizer, folder = load_tokenizer(STARTER), tmp_path / "base"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
