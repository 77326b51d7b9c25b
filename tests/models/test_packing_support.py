"""Documents packed into one row are scored as if each were alone, or the model is refused by name."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from support.paths import ROOT
from support.tiny_models import DECODERS, decoder
from tunelab.data.batching import pack_examples, pad_examples
from tunelab.data.examples import IGNORE, Example
from tunelab.errors import ConfigError
from tunelab.models.packing_support import (
    FLASH_KERNEL,
    available_kernels,
    candidate_kernels,
    enable_packing,
    logits_agree,
    narrowed_windows,
    supports_packing,
    untrainable_reason,
)
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL, VARLEN_KERNEL, PlainAttention, causal_inputs

LEAKS = {("opt", "eager"), ("opt", "sdpa")}  # position_ids do not reach the mask of OPT
NO_SUCH = {("gemma2", "sdpa")}  # transformers has no soft-cap there
PAIRS = [(f, a) for f in DECODERS for a in ("auto", "eager", "sdpa") if (f, a) not in NO_SUCH]
EXACT = [pair for pair in PAIRS if pair not in LEAKS]


def documents(*lengths: int) -> list[Example]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 300, (n,), generator=draw).tolist() for n in lengths or (7, 12, 3, 9)]
    return [Example(ids, [IGNORE, *ids[1:]], len(ids) - 1, row) for row, ids in enumerate(rows)]


def choose(model: PreTrainedModel, packing: bool | str, attention: str, kernels: Sequence[str] = ()) -> bool:
    at_work: Callable[[], AbstractContextManager[None]] = nullcontext
    return enable_packing(model, packing=packing, attention=attention, kernels=list(kernels), at_work=at_work)


def packed(family: str, attention: str, **options: Any) -> PreTrainedModel:
    model = decoder(family, None if attention == "auto" else attention, **options)
    assert choose(model, True, attention)
    return model


def flat_logits(model: PreTrainedModel, rows: Sequence[Example]) -> Tensor:
    found: Tensor = model(**causal_inputs(pack_examples(rows))).logits[0]
    return found


def alone(family: str, rows: Sequence[Example], *, training: bool = False, **options: Any) -> Tensor:
    """Each document by itself, in the most literal attention there is."""
    model = decoder(family, "eager", **options).train(training)
    return torch.cat([model(input_ids=torch.tensor([e.ids]), use_cache=False).logits[0] for e in rows])


@pytest.mark.parametrize(("family", "attention"), EXACT)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@torch.no_grad()
def test_packed_logits_are_those_of_each_document_alone(family: str, attention: str, training: bool) -> None:
    rates = {name: 0.0 for name in AutoConfig.for_model(family.split(maxsplit=1)[0]).to_dict() if "drop" in name}
    none = {} if not training else {name: rate for name, rate in rates.items() if name != "layerdrop"}
    rows = documents()

    model = packed(family, attention, **none).train(training)

    wanted = alone(family, rows, training=training, **none)
    torch.testing.assert_close(flat_logits(model, rows), wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 0.05  # else nothing would have to be kept apart


@pytest.mark.parametrize(("family", "attention"), EXACT)
@torch.no_grad()
def test_a_document_does_not_notice_that_the_one_before_it_changed(family: str, attention: str) -> None:
    model = packed(family, attention).eval()
    first, second, third = documents(11, 8, 11)

    before = flat_logits(model, [first, second])
    after = flat_logits(model, [third, second])

    assert torch.equal(before[11:], after[11:])
    assert not torch.allclose(before[:11], after[:11], atol=1e-2)


@pytest.mark.parametrize(("family", "attention"), sorted(LEAKS))
def test_a_pair_that_lets_documents_see_each_other_is_refused_by_name(family: str, attention: str) -> None:
    model = decoder(family, attention)

    with pytest.raises(ConfigError, match=f"{family} with model.attention={attention} lets .*data.packing=false, or"):
        choose(model, True, attention)

    assert model.config._attn_implementation == attention  # left as it was
    assert not choose(model, "auto", attention)  # "auto" pads


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
        ("recurrent_gemma", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "lru_width": 32}),
    ],
)
def test_a_family_without_a_way_to_keep_documents_apart_is_refused_by_name(
    family: str, options: dict[str, Any]
) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=300, **options))

    with pytest.raises(ConfigError, match=f"data.packing=true: {family} with any attention"):
        choose(model, True, "auto")

    assert not choose(model, "auto", "auto")


def test_a_leak_far_below_the_usual_is_still_seen() -> None:
    # Given a model in which a document hears a whisper of the one before it
    model = decoder("llama")
    clean = model.model.layers[0].self_attn.forward
    strength = 1e-3

    def whispering(*args: Any, **kwargs: Any) -> Any:
        mixed, weights = clean(*args, **kwargs)
        return mixed + strength * mixed.roll(1, dims=1).cumsum(1), weights

    assert supports_packing(model, DOCUMENT_KERNEL)
    model.set_attn_implementation("sdpa")
    model.model.layers[0].self_attn.forward = whispering

    # Then that is enough to keep it from packed rows
    assert not supports_packing(model, DOCUMENT_KERNEL)
    assert model.config._attn_implementation == "sdpa"


def test_a_window_wider_than_the_probes_documents_is_narrowed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a model with a window of 4096, and an attention that forgets about windows
    model = decoder("mistral", sliding_window=4096)
    assert supports_packing(model, DOCUMENT_KERNEL)
    model.set_attn_implementation("sdpa")
    registered = ALL_ATTENTION_FUNCTIONS[DOCUMENT_KERNEL]

    def forgetful(*args: Any, sliding_window: int | None = None, **kwargs: Any) -> Any:
        return registered(*args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, DOCUMENT_KERNEL, forgetful)

    # Then the probe tells, and the window is whole again
    assert not supports_packing(model, DOCUMENT_KERNEL)
    assert model.config.sliding_window == 4096


def test_windows_are_narrowed_in_proportion_and_restored() -> None:
    model = decoder("mistral", sliding_window=64)
    model.model.layers[0].window_size = 32

    with narrowed_windows(model):
        assert (model.config.sliding_window, model.model.layers[0].window_size) == (4, 2)

    assert (model.config.sliding_window, model.model.layers[0].window_size) == (64, 32)


def test_the_target_of_a_last_token_is_never_the_next_document() -> None:
    rows = [Example(e.ids, list(e.ids), len(e.ids), e.row) for e in documents()]  # a label even on each first token

    targets, ends = pack_examples(rows).targets[0], torch.tensor([len(e.ids) for e in rows]).cumsum(0) - 1

    assert (targets[ends] == IGNORE).all()
    assert (targets != IGNORE).sum() == sum(len(e.ids) - 1 for e in rows)


@pytest.mark.parametrize("attention", ["auto", "eager", "sdpa"])
def test_packing_false_pads_and_leaves_the_attention_alone(attention: str) -> None:
    model = decoder("llama", None if attention == "auto" else attention)
    before = model.config._attn_implementation

    assert not choose(model, False, attention)
    assert model.config._attn_implementation == before


def test_auto_takes_flat_rows_only_where_no_dense_mask_is_needed() -> None:
    assert candidate_kernels("auto", "auto", [], "sdpa") == [DOCUMENT_KERNEL]
    assert candidate_kernels("auto", "sdpa", [], "sdpa") == []
    assert candidate_kernels(True, "auto", [], "eager") == [DOCUMENT_KERNEL, "eager"]
    assert candidate_kernels(True, "sdpa", [FLASH_KERNEL], "sdpa") == ["sdpa"]
    assert candidate_kernels("auto", FLASH_KERNEL, [FLASH_KERNEL], FLASH_KERNEL) == [FLASH_KERNEL]
    assert candidate_kernels(False, "auto", [FLASH_KERNEL], "sdpa") == []


@pytest.mark.parametrize(
    ("device", "half", "flash", "varlen", "found"),
    [
        ("cuda", True, True, True, [FLASH_KERNEL, VARLEN_KERNEL]),
        ("cuda", True, False, True, [VARLEN_KERNEL]),
        ("cuda", True, False, False, []),
        ("cuda", False, True, True, []),  # the kernels compute in half precision only
        ("cpu", True, True, True, []),
        ("mps", True, True, True, []),
    ],
)
def test_a_kernel_is_taken_on_a_gpu_in_half_precision_where_it_is_installed(
    device: str, half: bool, flash: bool, varlen: bool, found: list[str]
) -> None:
    assert available_kernels(device, half=half, flash=lambda: flash, varlen=lambda: varlen) == found


def test_a_kernel_that_fails_on_this_device_gives_way_to_the_next() -> None:
    # Given kernels offered where they cannot run: on a processor
    model = decoder("llama")

    # When a layout is chosen, then the probe goes on to the one that works
    assert choose(model, "auto", "auto", [FLASH_KERNEL, VARLEN_KERNEL])
    assert model.config._attn_implementation == DOCUMENT_KERNEL


def test_the_kernel_of_pytorch_is_handed_each_document_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a stand-in for the GPU kernel that computes what its documentation says
    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **o: Any) -> Tensor:
        assert cu_q.dtype == torch.int32 and max_q == int(cu_q.diff().max()) and q.ndim == 3
        left, right = o["window_size"]
        assert right == 0
        parts = []
        for start, end in zip(cu_q.tolist(), cu_q.tolist()[1:], strict=False):
            near = torch.ones(end - start, end - start, dtype=torch.bool).tril()
            near = near if left < 0 else near.triu(-left)
            one, two, three = (part[start:end].transpose(0, 1) for part in (q, k, v))
            mixed = torch.nn.functional.scaled_dot_product_attention(one, two, three, near, scale=o["scale"])
            parts.append(mixed.transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    monkeypatch.setattr("torch.get_autocast_dtype", lambda device: torch.float32)

    # Then packed and padded rows give each document's own logits, windows and grouped heads included
    rows = documents()
    for family in ("llama", "mistral", "gpt2"):
        model = decoder(family)
        assert supports_packing(model, VARLEN_KERNEL)
        found = flat_logits(model.eval(), rows)
        torch.testing.assert_close(found, alone(family, rows), rtol=0, atol=1e-5)
        padded = pad_examples(rows, pad=0)
        found = model(**causal_inputs(padded)).logits
        real = torch.cat([found[place, : len(e.ids)] for place, e in enumerate(rows)])
        torch.testing.assert_close(real, alone(family, rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [DOCUMENT_KERNEL, VARLEN_KERNEL])
def test_capped_scores_are_refused_by_attentions_that_do_not_cap(name: str) -> None:
    assert not supports_packing(decoder("gemma2"), name)


def test_answers_are_written_with_a_mask_whatever_rows_are_trained_on() -> None:
    model = packed("llama", "auto")
    with PlainAttention(model):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == DOCUMENT_KERNEL


@pytest.mark.slow  # flex_attention is compiled
def test_an_attention_without_a_gradient_is_refused_before_training() -> None:
    # Given flex_attention on a processor, which scores but has no backward pass there
    model = decoder("llama", "flex_attention")

    with pytest.raises(ConfigError, match="model.attention=flex_attention: llama cannot be trained with it here"):
        choose(model, "auto", "flex_attention")

    assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in DECODERS if f not in ("gpt2", "opt")])
@torch.no_grad()
def test_flex_attention_keeps_documents_apart(family: str) -> None:
    model = decoder(family, "flex_attention").eval()
    assert supports_packing(model, "flex_attention")

    rows = documents()

    torch.testing.assert_close(flat_logits(model, rows), alone(family, rows), rtol=0, atol=1e-5)


def test_a_probe_leaves_mode_and_gradients_as_they_were() -> None:
    model = decoder("gpt2").train()
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)

    assert untrainable_reason(model) is None
    assert not logits_agree(model, lambda: torch.zeros(1), lambda: torch.ones(2))

    assert model.training and parameter.grad is not None and bool((parameter.grad == 1).all())


def test_real_models_take_flat_rows(real: Path) -> None:
    for path in (real / "models" / "stories260K", ROOT / "src/tunelab/starter/model"):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        assert supports_packing(model, DOCUMENT_KERNEL)
