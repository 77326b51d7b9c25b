"""Texts end to end through a sequence head get the logits and the gradient of padded rows, or the model pads."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from tunelab.data.batching import pack_texts
from tunelab.data.examples import Example, MicroBatch
from tunelab.errors import ConfigError
from tunelab.models.heads import sequence_logits
from tunelab.models.unpadded_attention import texts_of_like_length
from tunelab.models.unpadded_texts import UnpaddedTexts, enable_unpadded_texts

PAD, SEPARATOR, SIZE = 1, 3, 60
LENGTHS = (3, 41, 1, 17, 18, 40, 9, 2)
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
DISTILBERT = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
MODERNBERT = {**SMALL, "local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "bert one layer": {**SMALL, "num_hidden_layers": 1},
    "roberta": {**SMALL, "max_position_embeddings": 60},
    "xlm-roberta": SMALL,
    "camembert": SMALL,
    "electra": {**SMALL, "embedding_size": 8},
    "albert": {**SMALL, "embedding_size": 8},
    "distilbert": DISTILBERT,
    "distilbert sines": {**DISTILBERT, "sinusoidal_pos_embds": True},
    "modernbert": MODERNBERT,
    "modernbert mean": {**MODERNBERT, "classifier_pooling": "mean"},
    "modernbert wide": {**MODERNBERT, "local_attention": 128, "max_position_embeddings": 256},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {**SMALL, "num_key_value_heads": 1},
    "mistral": {**SMALL, "num_key_value_heads": 1, "sliding_window": 8},
    "qwen3": {**SMALL, "num_key_value_heads": 1, "head_dim": 8},
}
NO_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "resid_pdrop",
              "embd_pdrop", "attn_pdrop", "classifier_dropout", "seq_classif_dropout", "embedding_dropout",
              "mlp_dropout", "classifier_dropout_prob")  # fmt: skip
REFUSED = {
    "deberta-v2": {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "mpnet": SMALL,
    "funnel": {"d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32, "block_sizes": [1, 1], "num_decoder_layers": 1},
}


def build(family: str, options: dict[str, Any], **more: Any) -> PreTrainedModel:
    """A random model whose logits are far enough apart for a wrong token to show; nothing is dropped out."""
    torch.manual_seed(0)
    name = family.split(maxsplit=1)[0]
    known = AutoConfig.for_model(name).to_dict()
    still = {key: 0.0 for key in NO_DROPOUT if key in known}
    ids = {"vocab_size": SIZE, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": 4}
    config = AutoConfig.for_model(name, **{**ids, **still, "num_labels": 3, **options, **more})
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def texts(lengths: tuple[int, ...] = LENGTHS, *, pairs: bool = False) -> list[Example]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, SIZE, (length,), generator=draw).tolist() for length in lengths]
    for row in rows if pairs else ():
        row[len(row) // 3] = row[-1] = SEPARATOR
    return [Example(ids, place % 3, 1.0, place) for place, ids in enumerate(rows)]


def padded(examples: list[Example]) -> MicroBatch:
    """The rows as transformers lays them out."""
    width = max(len(example.ids) for example in examples)
    ids = torch.tensor([example.ids + [PAD] * (width - len(example.ids)) for example in examples])
    lengths, rows = torch.tensor([len(example.ids) for example in examples]), torch.arange(len(examples))
    return MicroBatch(ids, lengths, torch.tensor([example.target for example in examples]), rows)


def gradients(model: PreTrainedModel, logits: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    scores = logits()
    nn.functional.cross_entropy(scores, torch.arange(len(scores)) % scores.shape[1]).backward()
    return scores.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_texts_end_to_end_get_the_logits_and_the_gradient_of_padded_rows(family: str, pairs: bool) -> None:
    examples, separator = texts(pairs=pairs), SEPARATOR if pairs else None
    model = build(family, FAMILIES[family])
    expected, slopes = gradients(model, lambda: sequence_logits(model, padded(examples), separator=separator))

    unpadded = enable_unpadded_texts(model, packing=True, attention="auto", saves=True)
    assert unpadded is not None
    micro = pack_texts(examples)
    assert micro.ids.shape == (1, sum(LENGTHS))
    logits, steps = gradients(model, lambda: unpadded.logits(model, micro, separator=separator))

    assert expected.std() > 0.02
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    for name in slopes.keys() | steps.keys():
        zero = torch.zeros_like(dict(model.named_parameters())[name])  # a pooler that nothing reads has no gradient
        torch.testing.assert_close(steps.get(name, zero), slopes.get(name, zero), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert"])
def test_the_way_with_dropout_computes_the_same_where_it_drops_nothing(family: str) -> None:
    examples = texts()
    model = build(family, FAMILIES[family])
    expected, slopes = gradients(model, lambda: sequence_logits(model, padded(examples)))
    rates = {"attention_probs_dropout_prob", "attention_dropout"}.intersection(model.config.to_dict())
    never = build(family, FAMILIES[family], **dict.fromkeys(rates, 1e-12)).train()
    unpadded = UnpaddedTexts(never)

    logits, steps = gradients(never, lambda: unpadded.logits(never, pack_texts(examples)))

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    for name, slope in slopes.items():
        torch.testing.assert_close(steps[name], slope, rtol=1e-4, atol=1e-5, msg=name)


def test_attention_weights_are_dropped_as_often_as_in_padded_rows() -> None:
    # Given a model that drops a third of its attention weights and nothing else
    model = build("bert", SMALL, attention_probs_dropout_prob=0.33).train()
    examples = texts((12, 11, 5))

    def spread(logits: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        with torch.no_grad():
            draws = torch.stack([logits() for _ in range(400)])
        return draws.mean(0), draws.std(0)

    mean, std = spread(lambda: sequence_logits(model, padded(examples)))
    unpadded = UnpaddedTexts(model)
    own_mean, own_std = spread(lambda: unpadded.logits(model, pack_texts(examples)))

    assert unpadded.exact and model.training
    assert std.min() > 0.01
    assert ((own_mean - mean).abs() < 5 * std * (2 / 400) ** 0.5).all()
    assert (own_std / std - 1).abs().max() < 0.25


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "modernbert mean", "llama"])
def test_a_text_does_not_notice_that_the_others_changed(family: str) -> None:
    model = build(family, FAMILIES[family])
    unpadded = UnpaddedTexts(model)
    first, others = texts((7, 9, 8)), texts((9, 7, 8))[:2]
    with torch.no_grad():
        before = unpadded.logits(model, pack_texts(first))
        after = unpadded.logits(model, pack_texts([*others[::-1], first[2]]))
    assert torch.equal(before[2], after[2])


def test_roberta_counts_positions_past_a_padding_token_inside_a_text() -> None:
    # Given a text that holds the padding token, which RoBERTa does not count
    model = build("roberta", FAMILIES["roberta"])
    examples = [Example([5, PAD, 7, PAD, PAD, 8, 9], 0, 1.0, 0), *texts((4,))]
    with torch.no_grad():
        expected = sequence_logits(model, padded(examples))
        logits = UnpaddedTexts(model).logits(model, pack_texts(examples))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_is_not_exact_end_to_end_pads_and_is_left_as_it_was(family: str) -> None:
    model = build(family, REFUSED[family])
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    attention = model.config._attn_implementation

    assert enable_unpadded_texts(model, packing="auto", attention="auto", saves=True) is None
    with pytest.raises(ConfigError, match=f"data.packing=true: {family} gives other scores .*data.packing=false"):
        enable_unpadded_texts(model, packing=True, attention="auto", saves=True)

    assert model.config._attn_implementation == attention
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == hooks


def test_a_leak_far_below_the_usual_is_still_seen() -> None:
    model = build("bert", SMALL)
    clean = model.bert.encoder.layer[0].attention.self.forward

    def whispering(*args: Any, **kwargs: Any) -> Any:
        mixed, weights = clean(*args, **kwargs)
        return mixed + 1e-3 * mixed.roll(1, dims=1).cumsum(1), weights

    model.bert.encoder.layer[0].attention.self.forward = whispering
    assert not UnpaddedTexts(model).exact


@pytest.mark.parametrize(
    ("packing", "attention", "saves"), [(False, "auto", True), ("auto", "sdpa", True), ("auto", "auto", False)]
)
def test_rows_are_padded_where_the_settings_or_the_device_say_so(
    packing: bool | str, attention: str, saves: bool
) -> None:
    model = build("bert", SMALL)
    assert enable_unpadded_texts(model, packing=packing, attention=attention, saves=saves) is None
    assert model.config._attn_implementation == "sdpa"


def test_packing_and_an_attention_that_cannot_do_it_are_refused_together() -> None:
    with pytest.raises(ConfigError, match="data.packing=true: model.attention=eager does not keep texts apart"):
        enable_unpadded_texts(build("bert", SMALL), packing=True, attention="eager", saves=True)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "llama"])
def test_a_model_made_for_packed_texts_takes_padded_rows_as_ever(family: str) -> None:
    # Given rows with pads, and without, as whoever takes the trained model in memory hands them over
    examples, (alone, *_) = texts(), texts((30,))
    model = build(family, FAMILIES[family])
    with torch.no_grad():
        expected = [sequence_logits(model, padded(rows)) for rows in (examples, [alone], [alone, alone])]

        assert UnpaddedTexts(model).exact
        logits = [sequence_logits(model, padded(rows)) for rows in (examples, [alone], [alone, alone])]

    for got, right in zip(logits, expected, strict=True):
        torch.testing.assert_close(got, right, rtol=0, atol=1e-5)


def test_a_second_model_that_was_given_the_attention_of_the_first_is_made_ready_too() -> None:
    # Given the untrained twin of a model, as it is scored beside it, and a copy of the model itself
    model, twin, examples = build("bert", SMALL), build("bert", SMALL), texts()
    unpadded = UnpaddedTexts(model)
    twin.set_attn_implementation(model.config._attn_implementation)
    with torch.no_grad():
        expected = unpadded.logits(model, pack_texts(examples))
        for other in (twin, deepcopy(model)):
            ready = UnpaddedTexts(other)
            assert ready.exact
            torch.testing.assert_close(ready.logits(other, pack_texts(examples)), expected, rtol=0, atol=1e-6)


def test_texts_of_like_length_share_a_product() -> None:
    assert texts_of_like_length([3, 10, 9, 8, 7, 10]) == [[1, 5, 2, 3], [4], [0]]
    assert texts_of_like_length([5]) == [[0]]


def test_numbers_and_several_labels_of_a_row_are_the_targets_of_packed_texts() -> None:
    micro = pack_texts([Example([5, 6], [0.5, -1.0], 1.0, 4), Example([7], [0.25, 2.0], 1.0, 9)])
    assert micro.targets.tolist() == [[0.5, -1.0], [0.25, 2.0]]
    assert micro.row_indices.tolist() == [4, 9]
    assert micro.document_starts is not None and micro.document_starts.tolist() == [0, 2, 3]
    assert micro.positions is not None and micro.positions.tolist() == [[0, 1, 0]]
