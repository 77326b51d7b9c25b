"""Loss, gradients and scores are the same whether logits come a part at a time or all at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from support.micro_batches import instruction, micro
from support.paths import SUPPORT
from support.tiny_models import DECODERS, decoder
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.models import chunked_logits
from tunelab.models.heads import SupervisedHead
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.preference import Preference


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three positions, so that tiny rows have several."""
    monkeypatch.setattr(chunked_logits, "LOGITS_BUDGET", 2 * 4 * 300 * 3)
    monkeypatch.setattr(chunked_logits, "LEAST_ROWS", 3)


def loss_and_gradients(task: Any, model: PreTrainedModel, micro: MicroBatch) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    torch.manual_seed(1)
    _, loss = task.logits_and_loss(model, micro)
    (loss / 7).backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(task: Any, model: PreTrainedModel, micro: MicroBatch, tolerance: float = 1e-6) -> None:
    task.chunked_loss = False
    loss, gradients = loss_and_gradients(task, model, micro)
    task.chunked_loss = True
    assert task.takes_parts(model, micro)  # else nothing is compared
    in_parts, theirs = loss_and_gradients(task, model, micro)
    assert in_parts == pytest.approx(loss, rel=tolerance)
    assert gradients.keys() == theirs.keys()
    slack = tolerance * max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=tolerance, atol=slack, msg=name)


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_loss_and_gradients_of_every_family_are_those_of_all_logits_at_once(family: str, packed: bool) -> None:
    model = decoder(family).train()
    if packed and not supports_packing(model, DOCUMENT_KERNEL):
        pytest.skip("this family has no packed rows")
    assert_same(instruction(packed=packed), model, micro(packed=packed))


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_that_shares_its_matrix_with_the_embedding_gets_both_gradients(tied: bool) -> None:
    assert_same(instruction(), decoder("llama", tie_word_embeddings=tied), micro())


def test_label_smoothing_is_spread_over_the_vocabulary_of_each_part() -> None:
    assert_same(instruction(label_smoothing=0.2), decoder("llama"), micro())


def test_a_bias_and_a_norm_of_the_head_learn_the_same() -> None:
    model = decoder("llama")
    model.lm_head = nn.Linear(32, 300)
    assert_same(instruction(), model, micro())
    model.lm_head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 300))
    assert_same(instruction(), model, micro())


@pytest.mark.parametrize("frozen", ["lm_head", "layers", "embed"])
def test_frozen_parts_get_no_gradient(frozen: str) -> None:
    model = decoder("llama")
    for name, weight in model.named_parameters():
        weight.requires_grad_(frozen not in name)
    assert_same(instruction(), model, micro())


def test_a_head_that_learns_alone_learns_the_same() -> None:
    model = decoder("llama")
    for name, weight in model.named_parameters():
        weight.requires_grad_("lm_head" in name)
    assert_same(instruction(), model, micro())


def test_low_rank_layers_and_a_head_with_one_learn_the_same() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = decoder("llama")
    torch.manual_seed(0)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False), model)
    assert_same(instruction(), model, micro())


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
def test_half_precision_rounds_alike(family: str) -> None:
    model = decoder(family)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(instruction(), model, micro(), tolerance=2e-2)


def test_noise_of_dropout_is_drawn_as_before() -> None:
    assert_same(instruction(), decoder("gpt2", resid_pdrop=0.3, embd_pdrop=0.3).train(), micro())


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_preferences_learn_the_same(loss: str) -> None:
    task = Preference(loss=loss)
    ids, more = [5, 6, 7, 8, 9, 10], [5, 6, 11, 12]
    labels = [IGNORE, IGNORE, *ids[2:]], [IGNORE, IGNORE, *more[2:]]
    pairs = [
        Example([*ids, *more], [*labels[0], *labels[1]], 1, row, second_start=6, reference_logprobs=(-9.0, -8.0))
        for row in range(2)
    ]
    assert_same(task, decoder("llama"), task.collate(pairs))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_scores_are_those_of_all_logits_at_once(packed: bool) -> None:
    model, rows = decoder("llama").eval(), micro(packed=packed)
    assert not packed or supports_packing(model, DOCUMENT_KERNEL)
    values = []
    for chunked in (False, True):
        task = instruction(packed=packed)
        task.chunked_loss = chunked
        scores, predicted = task.scores(), list[int]()
        with torch.no_grad():
            for logits, part in task.logit_parts(model, rows):
                assert not chunked or len(logits) <= 3
                scores.update(logits, part)
                predicted += part.predicted_rows()
        values.append(scores.compute())
        assert predicted == [0, 1, 2, 3]  # each once
    assert values[1] == pytest.approx(values[0], rel=1e-6)


def test_no_tensor_as_large_as_all_logits_is_made() -> None:
    model, rows, task = decoder("llama"), micro(), instruction()
    task.chunked_loss = True
    task.supervised_head(model)
    positions = int((rows.targets != IGNORE).sum())
    with torch.profiler.profile(profile_memory=True, record_shapes=True) as profile:
        loss_and_gradients(task, model, rows)
    sizes = [shape for event in profile.events() for shape in event.input_shapes if len(shape) == 2]
    assert [3, 300] in sizes and [positions, 300] not in sizes


def test_small_logits_stay_whole_by_default_and_no_rows_at_all_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model, rows = decoder("llama"), micro()
    task = instruction()
    assert not task.takes_parts(model, rows)  # far below the budget
    task.chunked_loss = True
    nothing = rows._replace(targets=torch.full_like(rows.targets, IGNORE))
    loss, gradients = loss_and_gradients(task, model, nothing)
    assert loss == 0 and all(not gradient.any() for gradient in gradients.values())


def test_a_model_that_does_something_unknown_to_its_logits_says_so_and_keeps_them_whole() -> None:
    model, task = decoder("llama"), instruction()
    forward = model.forward

    def squared(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits.square()
        return output

    model.forward = squared
    task.chunked_loss = True
    assert "llama does more" in task.supervised_head(model).whole_reason()
    assert not task.takes_parts(model, micro())
    assert task.logits_and_loss(model, micro())[0].shape[1] == 300


def test_dropout_in_the_head_keeps_logits_whole() -> None:
    model = decoder("llama")
    model.lm_head = nn.Sequential(nn.Dropout(0.1), nn.Linear(32, 300))
    assert "drops out" in SupervisedHead(model).whole_reason()


def test_a_task_with_scores_or_a_loss_of_its_own_is_given_all_logits() -> None:
    class Weighted(Instruction):
        def loss_sum(self, logits: Tensor, micro: MicroBatch) -> Tensor:
            return 2 * super().loss_sum(logits, micro)

    model, rows, task = decoder("llama"), micro(), Weighted()
    task.chunked_loss = True
    logits, loss = task.logits_and_loss(model, rows)
    assert len(logits) == int((rows.targets != IGNORE).sum())
    plain = instruction().logits_and_loss(model, rows)[1]
    assert loss.item() == pytest.approx(2 * plain.item())


def test_a_gradient_cannot_be_taken_twice_in_silence() -> None:
    model, task = decoder("llama"), instruction()
    task.chunked_loss = True
    loss = task.logits_and_loss(model, micro())[1]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken already"):
        loss.backward()


def test_parts_are_larger_where_reading_the_matrix_of_the_head_costs_more_than_the_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    hidden = torch.empty(4096, 8, device="meta")
    logits = chunked_logits.ChunkedLogits(hidden, torch.nn.Identity(), lambda scores: scores, 128_256)

    assert chunked_logits.logits_budget(torch.device("cpu")) == 32 * 2**20
    assert logits.rows == 1046


@pytest.mark.slow
def test_two_processes_that_share_a_model_learn_and_score_as_one_with_all_logits(tmp_path: Path) -> None:
    # Given models of several kinds on two processes, each of which takes two passes a step
    script = SUPPORT / "gradients_in_parts.py"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    (out, error), (_, other_error) = (process.communicate(timeout=500) for process in ranks)
    assert [process.returncode for process in ranks] == [0, 0], error[-2000:] + other_error[-2000:]

    # Then gradients and losses are those of one process that has all logits at once, to rounding
    results: dict[str, tuple[float, float]] = json.loads(out)
    half = results.pop("half")
    assert half[0] < 5e-2 and half[1] < 1e-3
    for name, (gradient, loss) in results.items():
        assert gradient < 1e-6 and loss < 1e-6, name
