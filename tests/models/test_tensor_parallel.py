"""Layers that are split between devices: the same outputs and gradients as in one piece, or refused by name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from support.gradients_in_parts import pairs
from support.micro_batches import instruction, micro
from support.thread_ranks import run_on_ranks
from tunelab.config.schema import AdapterConfig, FsdpConfig
from tunelab.models import chunked_logits
from tunelab.models.adapters import attach_adapter
from tunelab.models.pretrained_layers import checkpoint_activations
from tunelab.models.sharding import gather_tree, local_part, parameters_without_memory, read_slices, shard_model
from tunelab.models.tensor_parallel import SPLIT_FAMILIES, TensorGroup, planned, split_faults, split_sizes
from tunelab.tasks.causal import CausalTask
from tunelab.tasks.preference import Preference
from tunelab.training.evaluate import evaluate_task
from tunelab.training.module import clip_gradients

SIZE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "granite": {"logits_scaling": 2.0, "attention_multiplier": 0.3},
    "llama": {"attention_bias": True, "mlp_bias": True},
}
IDS = torch.arange(24).view(2, 12) % 17  # the padding token among them, whose embedding does not learn


def small_model(family: str, *, labels: bool = False, vocabulary: int = 50, **more: Any) -> PreTrainedModel:
    """A model of two layers with random weights, biases and gains among them."""
    config = CONFIG_MAPPING[family](**{**SIZE, **OWN.get(family, {}), "vocab_size": vocabulary, **more})
    torch.manual_seed(0)
    made: PreTrainedModel = (AutoModelForSequenceClassification if labels else AutoModelForCausalLM).from_config(config)
    for weight in made.parameters():
        if weight.ndim == 1:
            nn.init.normal_(weight, 0.5, 0.3)
    return made


def gradients(model: PreTrainedModel) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of something that depends on all of them."""
    torch.manual_seed(5)
    logits = model(input_ids=IDS, use_cache=False).logits
    (logits.square().mean() + logits.log_softmax(-1)[..., 1].mean()).backward()
    return logits.detach(), {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def assert_split_as_whole(model: PreTrainedModel, size: int = 2, width: int = 2) -> None:
    """Weights, logits and gradients of a model on several ranks are those of the model in one piece."""
    assert split_faults(model, width) == []
    copies = [copy.deepcopy(model) for _ in range(size)]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    logits, right = gradients(model)

    def work(mesh: DeviceMesh, rank: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        shard_model(copies[rank], mesh, FsdpConfig())
        state = gather_tree(dict(copies[rank].state_dict()), keep=True)
        theirs, slopes = gradients(copies[rank])
        return theirs, gather_tree(slopes, keep=True), state

    for theirs, slopes, state in run_on_ranks(size, width, work):
        torch.testing.assert_close(theirs, logits, rtol=1e-5, atol=1e-6)
        assert slopes.keys() == right.keys() and state.keys() == weights.keys()
        for name, slope in right.items():
            torch.testing.assert_close(slopes[name], slope, rtol=1e-5, atol=1e-6, msg=name)
            assert torch.equal(state[name.replace("_checkpoint_wrapped_module.", "")], weights[name]), name


@pytest.mark.parametrize("family", SPLIT_FAMILIES)
def test_a_split_model_has_the_gradient_of_the_whole_one(family: str) -> None:
    assert_split_as_whole(small_model(family))


@pytest.mark.parametrize(("size", "vocabulary"), [(4, 50), (6, 51)], ids=["2 x 2", "3 x 2, vocabulary in one piece"])
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_split_is_spread_over_the_others_too(size: int, vocabulary: int, tied: bool) -> None:
    # Given numbers of rows that none of the groups can share out evenly
    assert_split_as_whole(small_model("llama", vocabulary=vocabulary, tie_word_embeddings=tied), size)


def test_a_head_of_labels_and_layers_that_are_computed_again_are_split_too() -> None:
    model = small_model("qwen3", labels=True)
    checkpoint_activations(model)

    assert_split_as_whole(model)


@pytest.mark.parametrize("kind", ["lora", "layernorm", "prompt", "head"])
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_adapters_learn_beside_split_layers(kind: str, family: str) -> None:
    model = small_model(family)
    attach_adapter(model, AdapterConfig(kind=kind, dropout=0.0, length=3, rank=4))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.02)

    assert_split_as_whole(model)


def test_a_norm_is_that_of_the_whole_gradient_whatever_is_split() -> None:
    model = small_model("qwen3")
    copies = [copy.deepcopy(model) for _ in range(4)]
    gradients(model)
    right = clip_gradients([*model.parameters()], 0.01)

    def work(mesh: DeviceMesh, rank: int) -> tuple[Tensor, dict[str, Tensor]]:
        shard_model(copies[rank], mesh, FsdpConfig())
        gradients(copies[rank])
        norm = clip_gradients([*copies[rank].parameters()], 0.01)
        return norm, gather_tree({name: w.grad for name, w in copies[rank].named_parameters()}, keep=True)

    for norm, slopes in run_on_ranks(4, 2, work):
        torch.testing.assert_close(norm, right, rtol=1e-6, atol=0)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(slopes[name], weight.grad, rtol=1e-5, atol=1e-8, msg=name)


def test_each_rank_keeps_a_quarter_of_a_matrix_and_half_of_a_gain() -> None:
    copies = [small_model("llama") for _ in range(4)]

    def work(mesh: DeviceMesh, rank: int) -> dict[str, int]:
        shard_model(copies[rank], mesh, FsdpConfig())
        return {name: w.to_local().numel() for name, w in copies[rank].named_parameters() if isinstance(w, DTensor)}

    for parts in run_on_ranks(4, 2, work):
        assert parts["model.layers.0.mlp.down_proj.weight"] == 32 * 48 / 4
        assert parts["model.layers.1.input_layernorm.weight"] == 32 / 2


def test_what_several_ranks_have_is_counted_on_one_of_them() -> None:
    model = small_model("llama")
    copies = [copy.deepcopy(model) for _ in range(6)]

    def work(mesh: DeviceMesh, rank: int) -> dict[str, int]:
        shard_model(copies[rank], mesh, FsdpConfig())
        return {name: local_part(weight).numel() for name, weight in copies[rank].named_parameters()}

    counts = run_on_ranks(6, 2, work)
    for name, weight in model.named_parameters():
        assert sum(count[name] for count in counts) == weight.numel(), name


@pytest.mark.parametrize(
    ("model", "width", "words"),
    [
        (lambda: AutoModelForCausalLM.from_config(CONFIG_MAPPING["gpt2"](n_layer=1, n_embd=8, n_head=2)), 2, "no plan"),
        (lambda: small_model("mixtral"), 2, "moe_tp_experts"),
        (lambda: small_model("cohere"), 2, "has not been held against"),
        (lambda: small_model("llama"), 4, "num_key_value_heads=2"),
        (lambda: small_model("phi3", intermediate_size=33), 2, "mlp.down_proj.weight"),
        (lambda: small_model("llama", attention_dropout=0.1), 2, "regularization.attention_dropout=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_by_name(model: Any, width: int, words: str) -> None:
    (fault,) = split_faults(model(), width)

    assert words in fault


def test_new_tokens_of_an_adapter_are_refused_by_name() -> None:
    model = small_model("llama")
    attach_adapter(model, AdapterConfig(kind="lora", rank=4), new_tokens=[48, 49])

    (fault,) = split_faults(model, 2)
    assert "embed_tokens" in fault and "adapter=full" in fault


def test_the_style_of_a_module_is_that_of_the_part_of_the_plan_that_holds_it() -> None:
    plan = {"model.layers.*.mlp.up_proj": "colwise", "lm_head": "colwise_gather_output"}

    assert planned(plan, "model.layers.11.mlp.up_proj") == ("colwise", "")
    assert planned(plan, "model.layers.0.mlp.up_proj.lora_A.default") == ("colwise", "lora_A.default")
    assert planned(plan, "model.layers.0.mlp.act_fn") == ("replicate", "")


def test_a_device_of_two_sends_each_sum_once_and_keeps_half_of_what_is_split() -> None:
    # Given layers 32 wide: two sums each in the forward and two in the backward pass, and one behind the embedding
    model = small_model("llama", num_hidden_layers=1)
    sizes = split_sizes(model, 2)

    assert sizes.sent == 4 * 32 * (2 + 2 + 1)
    assert sizes.sent_by_head == 4 * (32 + 50 / 2)
    assert sizes.kept == 4 / 2 * (32 + 16 + 16 + 32 + 48 * 3)
    whole = sum(
        w.numel()
        for name, w in model.named_parameters()
        if "norm" in name or name.endswith(("o_proj.bias", "down_proj.bias"))
    )
    total = sum(w.numel() for w in model.parameters())
    assert sizes.share == pytest.approx(((total - whole) / 2 + whole) / total)


@pytest.mark.parametrize(("vocabulary", "first"), [(300, False), (300, True), (301, False)])
@pytest.mark.parametrize("task", [instruction(), Preference()], ids=["answers", "preferences"])
def test_logits_come_in_parts_from_a_head_of_which_each_rank_has_some(
    vocabulary: int, first: bool, task: CausalTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given parts of two positions, and a head that was looked at before it was split, or that stays whole
    monkeypatch.setattr(chunked_logits, "LEAST_ROWS", 2)
    monkeypatch.setattr(chunked_logits, "logits_budget", lambda device: 64)
    rows = micro() if task.name == "instruction" else pairs((9, 4, 7, 2))
    model = small_model("qwen3", vocabulary=vocabulary, tie_word_embeddings=True)
    copies, tasks = [copy.deepcopy(model) for _ in range(4)], [copy.deepcopy(task) for _ in range(4)]

    def learn(model: PreTrainedModel, task: CausalTask) -> tuple[Tensor, float, dict[str, Tensor]]:
        loss = task.logits_and_loss(model, rows)[1]
        loss.backward()
        scores = task.scores()
        scores.update = lambda logits, part: losses.append(task.loss_sum(logits, part))  # type: ignore[method-assign]
        losses = list[Tensor]()
        with torch.no_grad():
            evaluate_task([rows], task, model, scores)
        slopes = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
        return loss.detach(), float(sum(losses)), slopes

    task.chunked_loss = False
    loss, score, right = learn(model, task)

    def work(mesh: DeviceMesh, rank: int) -> tuple[Tensor, float, dict[str, Tensor]]:
        if first:
            assert not tasks[rank].supervised_head(copies[rank]).whole_reason()
        shard_model(copies[rank], mesh, FsdpConfig())
        tasks[rank].chunked_loss = True
        assert tasks[rank].takes_parts(copies[rank], rows)
        own, theirs, slopes = learn(copies[rank], tasks[rank])
        return own, theirs, gather_tree(slopes, keep=True)

    # Then loss, gradients and scores are those of all logits at once
    largest = max(float(slope.abs().max()) for slope in right.values())
    for own, theirs, slopes in run_on_ranks(4, 2, work):
        torch.testing.assert_close(own, loss, rtol=1e-6, atol=0)
        assert theirs == pytest.approx(score, rel=1e-6)
        assert max(float((slopes[name] - slope).abs().max()) for name, slope in right.items()) < 1e-6 * largest


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3_text", "gpt_neox"])
def test_bytes_that_are_foretold_are_those_that_are_sent(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a count of what goes round: a ring sends each byte of a sum twice, of parts side by side once, but the last
    sent = list[float]()
    add, join = TensorGroup.sum, TensorGroup.join
    monkeypatch.setattr(TensorGroup, "sum", lambda group, value: sent.append(value.nbytes) or add(group, value))
    monkeypatch.setattr(TensorGroup, "join", lambda group, value: sent.append(value.nbytes) or join(group, value))
    copies = [small_model(family) for _ in range(2)]
    sizes = split_sizes(copies[0], 2)

    def work(mesh: DeviceMesh, rank: int) -> None:
        shard_model(copies[rank], mesh, FsdpConfig())
        gradients(copies[rank])

    run_on_ranks(2, 2, work)

    # Then two devices send half of each sum twice, and one half of what is joined
    assert sum(sent) / 2 == IDS.numel() * (sizes.sent + sizes.sent_by_head)


def test_each_rank_reads_its_own_part_of_a_base_model(tmp_path: Path) -> None:
    # Given a model in a folder, and models of its kind that are shapes only
    whole = small_model("qwen3", tie_word_embeddings=True)
    whole.save_pretrained(tmp_path)
    with parameters_without_memory():
        empty = [small_model("qwen3", tie_word_embeddings=True) for _ in range(4)]

    def work(mesh: DeviceMesh, rank: int) -> dict[str, Tensor]:
        shard_model(empty[rank], mesh, FsdpConfig(load="slices"))
        read_slices(empty[rank], tmp_path, torch.device("cpu"))
        return gather_tree(dict(empty[rank].state_dict()), keep=True)

    for state in run_on_ranks(4, 2, work):
        for name, weight in whole.state_dict().items():
            assert torch.equal(state[name], weight), name
