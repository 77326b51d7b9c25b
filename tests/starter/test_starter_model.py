"""The committed model folder: small, complete, and with a chat template that keeps its promises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from support.paths import ROOT
from tunelab.starter.bpe_tokenizer import BOS, EOS, MAX_LENGTH, PAD
from tunelab.starter.build import build_starter
from tunelab.starter.world import whole_world

FOLDER = ROOT / "src/tunelab/starter/model"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who went to Ashford?\n\nMara went to Ashford at 7:25."},
    {"role": "assistant", "content": "Mara"},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "at 7:25"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_the_folder_stays_under_five_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5_000_000


def test_the_model_is_a_small_llama_that_knows_its_special_tokens(model: Any, tokenizer: Any) -> None:
    assert model.config.model_type == "llama"
    assert model.num_parameters() <= 2_000_000
    assert model.config.vocab_size == len(tokenizer)
    for settings in (model.config, model.generation_config):
        assert settings.bos_token_id == tokenizer.bos_token_id
        assert settings.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(EOS)
        assert settings.pad_token_id == tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids(PAD)
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}) == 4
    assert tokenizer.model_max_length == model.config.max_position_embeddings == MAX_LENGTH


def test_learning_the_tokenizer_again_gives_the_committed_pieces(tmp_path: Path) -> None:
    build_starter(tokenizer=tmp_path)
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    "text", ["Mara", " a lamp\n\n7:25 ", "Größe 東京 \U0001f600", "<|user|>x<|end|>", '{"a": [1, 23]}\t']
)
def test_any_text_comes_back_as_it_went_in(text: str, tokenizer: Any) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_name_has_the_same_pieces_wherever_it_stands(tokenizer: Any) -> None:
    name = tokenizer.tokenize("Marena")
    for before, after in (("by ", " went"), ("\n", ":"), ('{"name": "', '"}'), ("A, ", ", B"), ("<|assistant|>", EOS)):
        around = tokenizer.tokenize(before + "Marena" + after)
        assert any(around[start : start + len(name)] == name for start in range(len(around)))


def test_every_name_price_and_time_is_one_piece(tokenizer: Any) -> None:
    # a name in two pieces must be copied with its ending, which a small model guesses instead
    world = whole_world()
    things = [f" {thing}" for thing in world.things]  # as they stand inside a sentence
    for pool in (world.people, world.places, things, world.prices, world.times):
        assert not [word for word in map(str, pool) if len(tokenizer.tokenize(word)) != 1]


def test_the_rendered_chat_begins_with_one_mark_and_encodes_to_the_same_ids(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    assert rendered.startswith(BOS)
    assert rendered.count(BOS) == ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == ids
    assert tokenizer.decode(ids) == rendered


def test_the_prompt_is_the_beginning_of_the_whole_chat(tokenizer: Any) -> None:
    for turns in (2, 4):
        plain = {"tokenize": True, "return_dict": False}
        prompt = tokenizer.apply_chat_template(CHAT[:turns], add_generation_prompt=True, **plain)
        whole = tokenizer.apply_chat_template(CHAT[: turns + 1], **plain)
        assert whole[: len(prompt)] == prompt
        assert whole[-1] == tokenizer.eos_token_id


def test_the_assistant_mask_covers_answers_and_their_end_marks_only(tokenizer: Any) -> None:
    made = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, kept in zip(made["input_ids"], made["assistant_masks"], strict=True) if kept]
    assert tokenizer.decode(learned) == f"Mara{EOS}at 7:25{EOS}"


def test_a_role_the_template_does_not_know_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="unknown role narrator"):
        tokenizer.apply_chat_template([{"role": "narrator", "content": "x"}], tokenize=False)


def test_the_base_copies_a_list_that_is_read_out_again_and_again(model: Any, tokenizer: Any) -> None:
    names = "Marena, Torwyn, Belia, Kelik, Zano"
    ids = tokenizer("\n".join([names] * 8), return_tensors="pt")["input_ids"]
    with torch.no_grad():
        guessed = model(ids).logits[0, :-1].argmax(-1)
    known = set(tokenizer.convert_tokens_to_ids(names.split(", ")))
    last = [place for place in range(1, ids.shape[1]) if int(ids[0, place]) in known][-5:]
    assert len(last) == 5
    assert sum(int(guessed[place - 1]) == int(ids[0, place]) for place in last) >= 4
