"""Greedy answers in batches, against transformers one prompt at a time."""

from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import tunelab.generation.decode as decoding
from support.tiny_runs import settings
from tunelab.generation import row_groups
from tunelab.generation.decode import batch_prompts, can_refill, decode, decode_refilled, next_tokens, use_sampling
from tunelab.generation.packed_weights import packed_weights
from tunelab.generation.row_groups import grouped_kernel
from tunelab.models.adapters import attach_adapter
from tunelab.models.soft_prompt import soft_prompt_ids
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {**SIZE, "num_key_value_heads": 1},
    "gpt_neox": SIZE,
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    },
    "qwen2": {**SIZE, "num_key_value_heads": 1},
    "qwen3": {**SIZE, "num_key_value_heads": 2, "head_dim": 16},
    "mistral": {**SIZE, "num_key_value_heads": 2, "sliding_window": 4},
    "gemma2": {**SIZE, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "tie_word_embeddings": False},
    "gemma3_text": {**SIZE, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4, "tie_word_embeddings": False},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}  # fmt: skip
STOP = list(range(2, 32))  # a tenth of the vocabulary, so that answers end at every length
NEW = 12


def tiny(family: str) -> PreTrainedModel:
    """A random model whose every position matters: its weights are large."""
    torch.manual_seed(0)
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=300, **{**marks, **FAMILIES[family]})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "A_log" not in name:
            nn.init.normal_(weight, std=0.3)
    return model.eval()


def prompts(count: int = 14) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 30, (count,), generator=draw).tolist()
    return [[1, *torch.randint(32, 300, (length,), generator=draw).tolist()] for length in lengths]


def alone(model: PreTrainedModel, prompt: list[int], new: int = NEW) -> list[int]:
    """Transformers' own answer to one prompt, without pads."""
    settings = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=STOP, pad_token_id=0)
    ids = torch.tensor([prompt])
    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    answer = found[0, len(prompt) :].tolist()
    return [token for place, token in enumerate(answer) if not set(answer[: place + 1]) & set(STOP)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_that_of_transformers_whatever_shares_its_batch(family: str) -> None:
    model, asked = tiny(family), prompts()
    wanted = [alone(model, prompt) for prompt in asked]
    assert len({len(answer) for answer in wanted}) > 3, "the answers end at too few lengths to tell anything"

    for budget in (1, 150, 10**6):  # one by one, a few, all at once
        found = decode(model, asked, stop=STOP, max_new_tokens=NEW, budget=budget)
        assert [answer.ids for answer in found] == wanted
        assert {answer.finish_reason for answer in found} == {"stop", "length"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_pads_seen_or_positions_counted_from_the_pads_would_be_caught(family: str) -> None:
    # Given a batch in which positions start at the pads, the mistake that left padding invites
    model, asked = tiny(family), prompts()
    wanted = [alone(model, prompt) for prompt in asked]
    width = max(map(len, asked))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in asked])

    with torch.no_grad():
        first = model(input_ids=ids, position_ids=torch.arange(width)[None].expand_as(ids)).logits[:, -1].argmax(-1)

    # Then it says something else: the test above would fail
    assert first.tolist() != [answer[0] if answer else -1 for answer in wanted]


def test_batches_stay_within_the_budget_and_lose_no_prompt() -> None:
    lengths = [len(prompt) for prompt in prompts(50)]

    found = batch_prompts(tiny("llama"), lengths, NEW, 200)

    assert sorted(place for batch in found for place in batch) == list(range(50))
    assert all(len(batch) * (max(lengths[place] for place in batch) + NEW) <= 200 for batch in found)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_an_answer_ends_with_the_context_and_says_so(family: str) -> None:
    # Given prompts that leave less room than an answer may take, beside a short one
    model = tiny(family)
    model.config.max_position_embeddings = 64
    draw = torch.Generator().manual_seed(2)
    long, full, short = ([1, *torch.randint(32, 300, (n,), generator=draw).tolist()] for n in (60, 99, 5))

    found = decode(model, [long, full, short], stop=[299], max_new_tokens=NEW)

    # Then the long one keeps its prompt and gets what is left, and the full one loses its oldest tokens but the first
    assert (found[0].finish_reason, len(found[0].ids), found[0].prompt_tokens_cut) == ("context", 3, 0)
    assert (found[1].finish_reason, len(found[1].ids), found[1].prompt_tokens_cut) == ("length", NEW, 100 - (64 - NEW))
    assert found[1].ids == decode(model, [[1, *full[-(63 - NEW) :]]], stop=[299], max_new_tokens=NEW)[0].ids
    assert len(found[2].ids) == NEW or found[2].finish_reason == "stop"


def test_generation_disturbs_neither_the_mode_nor_the_random_numbers_nor_the_attention() -> None:
    # Given a model that trains, with one part that does not, and document attention
    model = tiny("llama")
    model.train()
    model.model.layers[0].eval()
    model.set_attn_implementation(DOCUMENT_KERNEL)
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()

    decode(model, prompts(), stop=STOP, max_new_tokens=NEW)

    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config._attn_implementation == DOCUMENT_KERNEL
    assert all(weight.grad is None for weight in model.parameters())


def test_nothing_asked_gives_nothing() -> None:
    assert decode(tiny("llama"), [], stop=STOP, max_new_tokens=NEW) == []


@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "opt", "gpt_neox", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "bloom"]
)
def test_a_row_that_is_done_gives_way_to_the_next_prompt_and_changes_no_answer(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more prompts than rows, whose answers end at many lengths, and groups for the least difference of lengths
    model, asked = tiny(family), sorted(prompts(30), key=len, reverse=True)
    expected = [alone(model, prompt) for prompt in asked]
    passes = []
    model.register_forward_pre_hook(lambda *_, **named: passes.append(1), with_kwargs=True)
    assert can_refill(model)
    monkeypatch.setattr(row_groups, "SPARE_PADS", 1)
    calls = []
    monkeypatch.setattr(
        row_groups,
        "sdpa_attention_forward",
        lambda *parts, **named: [calls.append(1), sdpa_attention_forward(*parts, **named)][1],
    )

    with torch.no_grad(), grouped_kernel(model), packed_weights(model):
        rows = decode_refilled(model, asked, STOP, NEW, None, 6)
    if model.config._attn_implementation == "sdpa" and family != "bloom":
        assert len(calls) > SIZE["num_hidden_layers"] * len(passes), "no pass reads its rows in several groups"

    # Then each gets what it gets alone, in fewer passes than batch after batch
    assert [[token for token in row if token not in STOP] for row in rows] == expected
    taken, batches = len(passes), [asked[start : start + 6] for start in range(0, 30, 6)]
    passes.clear()
    with torch.no_grad():
        for batch in batches:
            decode_refilled(model, batch, STOP, NEW, None, 6)
    assert taken < 2 * len(passes)  # each prompt that comes in costs a pass, and none waits for the others


def test_long_answers_that_outlive_many_others_keep_their_past() -> None:
    # Given one answer without an end among many short ones, so that columns are added, moved and left behind
    model = tiny("llama")
    draw = torch.Generator().manual_seed(4)
    asked = [[1, *torch.randint(32, 300, (n,), generator=draw).tolist()] for n in (28, *range(27, 3, -1))]
    expected = [alone(model, prompt, 90) for prompt in asked]
    assert max(map(len, expected)) > 20 > min(map(len, expected))

    answers = decode(model, asked, stop=STOP, max_new_tokens=90, budget=4 * 120)

    assert [answer.ids for answer in answers] == expected


def test_sampling_and_recurrent_layers_decode_batch_by_batch() -> None:
    assert not can_refill(tiny("mamba"))
    with use_sampling(1.0, 0):
        assert not can_refill(tiny("llama"))


@pytest.mark.parametrize("kind", ["lora", "dora", "prompt"])
def test_answers_of_adapted_models_are_those_of_transformers(kind: str) -> None:
    # Given an adapter that changes what the model says, and prompts that come and go in few rows
    model, asked = tiny("llama"), prompts(10)
    bare = [alone(model, prompt) for prompt in asked]
    attach_adapter(model, settings(f"adapter={kind}", "adapter.freeze=[]").adapter)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            nn.init.normal_(weight, std=0.3)
    model.eval()
    lead = soft_prompt_ids(model)
    expected = [alone(model, [*lead, *prompt]) for prompt in asked]
    assert expected != bare

    answers = decode(model, asked, stop=STOP, max_new_tokens=NEW, budget=3 * (30 + len(lead) + NEW))

    assert [answer.ids for answer in answers] == expected


def peak_bytes(model: PreTrainedModel, asked: list[list[int]]) -> int:
    """The most that tensors held at a time while prompts were answered in rows for all of them."""
    with torch.profiler.profile(profile_memory=True) as profile:
        decode(model, asked, stop=STOP, max_new_tokens=4, budget=10**6)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes))


def test_prompts_are_read_some_at_a_time_so_that_many_hold_little_more_than_their_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = tiny("llama"), [prompt * 3 for prompt in prompts(60)]
    past = sum(map(len, asked)) * 2 * 2 * 16 * 4  # keys and values of two layers with one head, in bytes

    monkeypatch.setattr(decoding, "FULL_PASS", (128, 128))
    some = peak_bytes(model, asked)
    monkeypatch.setattr(decoding, "FULL_PASS", (10**6, 10**6))
    whole = peak_bytes(model, asked)

    assert some < 6 * past < whole / 1.5


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_no_answer_reads_what_nothing_was_written_to(family: str) -> None:
    # Given memory that holds no numbers before it is written to
    model, asked = tiny(family), prompts(30)
    expected = [answer.ids for answer in decode(model, asked, stop=STOP, max_new_tokens=NEW)]
    torch.use_deterministic_algorithms(True)
    try:
        answers = decode(model, asked, stop=STOP, max_new_tokens=NEW, budget=6 * (30 + NEW))
    finally:
        torch.use_deterministic_algorithms(False)

    assert [answer.ids for answer in answers] == expected


@pytest.mark.parametrize("size", [1, 63, 64, 640])
def test_the_likeliest_token_is_the_first_of_the_largest(size: int) -> None:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randint(0, 4, (50, size), generator=draw).float()  # with many equal ones
    logits[0] = -torch.inf
    logits[1, size // 2] = torch.nan

    assert torch.equal(next_tokens(logits), logits.argmax(-1, keepdim=True))
    assert torch.equal(next_tokens(logits.bfloat16()), logits.argmax(-1, keepdim=True))
