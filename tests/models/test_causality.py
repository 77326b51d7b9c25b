"""Answers are learned from what stands before them: a model that looks both ways is refused, whatever it is called."""

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from support.preference_examples import write_pairs
from support.tiny_models import DECODERS, ENCODERS, STARTER, decoder, saved
from support.tiny_runs import QUIET, instructions, settings
from tunelab.config.schema import PretrainedModelConfig
from tunelab.errors import ConfigError
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.packing_support import is_bidirectional
from tunelab.training.run import fine_tune


def masked(family: str, folder: Path) -> Path:
    """A folder with an encoder and the head it was pre-trained with, as the hub holds it."""
    return saved(family, folder, AutoModelForMaskedLM, ENCODERS[family])


@pytest.mark.parametrize("data", ["instruction", "preference"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_that_sees_the_tokens_it_is_to_predict_is_refused_by_name(
    family: str, data: str, tmp_path: Path
) -> None:
    # Given an encoder that transformers loads as a causal model, though it looks both ways
    folder = masked(family, tmp_path)
    file = instructions(tmp_path) if data == "instruction" else write_pairs(tmp_path, "validation", 12)

    with pytest.raises(ConfigError, match=f"{family} looks both ways, .*pick a decoder"):
        fine_tune(
            settings(f"data={data}", f"data.train={file}", "model=pretrained", f"model.path={folder}", *QUIET),
            tmp_path / "run",
        )


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_without_its_head_is_told_that_it_cannot_answer(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path, AutoModel, ENCODERS[family])

    with pytest.raises(ConfigError, match=f"(?i){family}"):
        load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})


@pytest.mark.parametrize("family", DECODERS)
def test_no_decoder_sees_ahead(family: str) -> None:
    model = decoder(family).train()

    assert not is_bidirectional(model)
    assert model.training


def test_an_encoder_turned_into_a_decoder_may_learn_to_answer(tmp_path: Path) -> None:
    folder = masked("bert", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.is_decoder = True
    config.save_pretrained(folder)

    model = load_model(PretrainedModelConfig(path=str(folder)), load_tokenizer(STARTER), head="causal", options={})

    assert not is_bidirectional(model)
