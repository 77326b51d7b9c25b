"""A pretrained model cut to some of its layers: same weights, right order, an export that reloads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from support.tiny_models import DECODERS, ENCODERS, STARTER, saved
from support.tiny_runs import QUIET, instructions, settings
from tunelab.config.schema import PretrainedModelConfig
from tunelab.errors import ConfigError
from tunelab.models.freezing import layer_stack
from tunelab.models.load_model import load_model, load_tokenizer
from tunelab.models.pretrained_layers import select_layers
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.load_run import load_run
from tunelab.training.run import fine_tune

DEEP = {
    "gpt2": {**DECODERS["gpt2"], "n_layer": 5},
    "distilbert": {**ENCODERS["distilbert"], "n_layers": 5},
    **{
        family: {**{**DECODERS, **ENCODERS}[family], "num_hidden_layers": 5}
        for family in ("llama", "qwen3", "gpt_neox", "opt", "gemma", "bert", "roberta", "modernbert")
    },
    "qwen3 with a window": {**DECODERS["qwen3 with a window"], "num_hidden_layers": 5, "max_window_layers": 2},
    "gemma3_text": {**DECODERS["gemma3_text"], "num_hidden_layers": 5},
}
KEPT = {"bottom": [0, 1, 2], "top": [2, 3, 4], "spread": [0, 2, 4]}
TEXT = torch.tensor([[5, 9, 3, 7, 11, 13, 4, 8, 21, 30], [6, 2, 9, 12, 40, 3, 5, 17, 22, 8]])


def auto_of(family: str) -> tuple[Any, str]:
    return (AutoModelForSequenceClassification, "sequence") if family in ENCODERS else (AutoModelForCausalLM, "causal")


def by_hand(model: PreTrainedModel, kept: list[int]) -> Tensor:
    """Logits of the whole model with every other layer stepped over."""

    def step_over(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        before = args[0] if args else kwargs["hidden_states"]
        return (before, *output[1:]) if isinstance(output, tuple) else before

    stack, layers = layer_stack(model)
    for layer in set(range(layers)) - set(kept):
        model.get_submodule(f"{stack}.{layer}").register_forward_hook(step_over, with_kwargs=True)
    with torch.no_grad():
        logits: Tensor = model.eval()(input_ids=TEXT).logits
    return logits


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("family", DEEP)
def test_a_cut_model_computes_what_its_layers_compute_and_reloads(family: str, keep: str, tmp_path: Path) -> None:
    # Given a model of five layers, and what it says when only three of them work
    auto, head = auto_of(family)
    folder = saved(family, tmp_path, auto, DEEP[family])
    expected = by_hand(auto.from_pretrained(folder), KEPT[keep])
    assert (expected - by_hand(auto.from_pretrained(folder), [1, 2, 3])).abs().max() > 1e-3  # the choice shows
    wanted = PretrainedModelConfig(path=str(folder), depth=3, keep=keep)

    # A first layer unlike the others lets no other stand in its place
    if (family, keep) == ("modernbert", "top"):
        with pytest.raises(ConfigError, match="modernbert cannot be cut this way .*try model.keep=bottom or spread"):
            load_model(wanted, load_tokenizer(STARTER), head=head, options={})
        return

    # When it is cut, then it says the same, and so does what it leaves on disk
    model = load_model(wanted, load_tokenizer(STARTER), head=head, options={}).eval()
    model.save_pretrained(tmp_path / "cut")
    again = auto.from_pretrained(tmp_path / "cut").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=TEXT).logits, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(again(input_ids=TEXT).logits, model(input_ids=TEXT).logits)
    assert again.config.num_hidden_layers == 3
    assert layer_stack(again)[1] == 3


@pytest.mark.parametrize("family", ["gpt2", "qwen3 with a window", "gemma3_text"])
def test_a_cut_model_writes_with_its_cache_what_it_writes_without(family: str, tmp_path: Path) -> None:
    folder = saved(family, tmp_path, AutoModelForCausalLM, DEEP[family])
    model = load_model(
        PretrainedModelConfig(path=str(folder), depth=3, keep="top"), load_tokenizer(STARTER), head="causal", options={}
    ).eval()

    said = [
        model.generate(TEXT, max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=cache)
        for cache in (True, False)
    ]

    assert torch.equal(*said)


def test_random_weights_take_the_cut_architecture(tmp_path: Path) -> None:
    folder = saved("qwen3 with a window", tmp_path, AutoModelForCausalLM, DEEP["qwen3 with a window"])
    wanted = PretrainedModelConfig(path=str(folder), depth=2, keep="top", weights="random")

    model = load_model(wanted, load_tokenizer(STARTER), head="causal", options={})

    assert model.config.layer_types == ["sliding_attention"] * 2
    assert layer_stack(model)[1] == 2


@pytest.mark.parametrize(
    ("total", "count", "keep", "expected"),
    [
        (12, 3, "bottom", [0, 1, 2]),
        (12, 3, "top", [9, 10, 11]),
        (12, 6, "spread", [0, 2, 4, 7, 9, 11]),
        (12, 1, "spread", [0]),
        (12, 1, "top", [11]),
        (4, 4, "spread", [0, 1, 2, 3]),
    ],
)
def test_layers_are_chosen_from_below_above_or_evenly(total: int, count: int, keep: str, expected: list[int]) -> None:
    assert select_layers(total, count, keep) == expected


def test_a_spread_never_takes_a_layer_twice() -> None:
    for total in range(1, 40):
        for count in range(1, total + 1):
            kept = select_layers(total, count, "spread")
            assert len(set(kept)) == count
            assert kept == sorted(kept)


def test_a_cut_model_trains_and_its_export_reloads(tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", "model.depth=2", "model.keep=spread"]
    small = ["batch_size=8", "max_steps=2", "data.split.validation=0.2", "data.split.test=0.1", "model.reinit_top=1"]
    fine_tune(settings(*given, *small, *QUIET), tmp_path / "run")

    exported = AutoModelForCausalLM.from_pretrained(RunDirectory(tmp_path / "run").export)

    assert layer_stack(exported)[1] == exported.config.num_hidden_layers == 2
    # and the run can be used again: from its checkpoint, over a base cut again, or from its export, already cut
    again = load_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.ckpt").unlink()
    taken = load_run(tmp_path / "run")
    assert again.note is None and taken.note is not None
    for one, other in zip(again.model.parameters(), taken.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_more_layers_than_there_are_are_told_before_data_is_read(tmp_path: Path) -> None:
    given = ["data=instruction", f"data.train={tmp_path}/nowhere.jsonl", "model.depth=9", "model.reinit_top=7"]

    with pytest.raises(ConfigError, match=r"(?s)model.depth=9 is more than the 4 layers.*model.reinit_top=7 is more"):
        fine_tune(settings(*given, *QUIET), tmp_path / "run")


def test_a_family_whose_layers_share_weights_is_refused_by_name(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 2, "intermediate_size": 48}
    folder = saved("albert", tmp_path, AutoModelForSequenceClassification, {**sizes, "num_hidden_layers": 4})

    with pytest.raises(ConfigError, match="albert cannot be cut this way .no stack of layers was found"):
        load_model(
            PretrainedModelConfig(path=str(folder), depth=2), load_tokenizer(STARTER), head="sequence", options={}
        )


def test_layers_that_know_their_height_do_not_move(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path, AutoModelForCausalLM, {**DEEP["gpt2"], "scale_attn_by_inverse_layer_idx": True})

    with pytest.raises(ConfigError, match="scales its attention by its own height"):
        load_model(
            PretrainedModelConfig(path=str(folder), depth=2, keep="top"),
            load_tokenizer(STARTER),
            head="causal",
            options={},
        )
