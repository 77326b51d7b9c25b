"""Scores of answers: sums and counts, so that neither batches nor layout show in them."""

import math
import pickle
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.data.examples import IGNORE, Example
from tunelab.models.packing_support import supports_packing
from tunelab.models.unpadded_attention import DOCUMENT_KERNEL
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.token_metrics import TokenScores


def model() -> PreTrainedModel:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, max_position_embeddings=64, **size)).eval()


def examples() -> list[Example]:
    """Eleven rows whose share of learned tokens runs from next to nothing to all, as in plain text."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for row in range(11):
        ids = torch.randint(1, 50, (4 + 3 * row,), generator=draw).tolist()
        learned = 1 + row * 3 if row % 2 else 1
        labels = list(ids) if row == 4 else [IGNORE] * (len(ids) - learned) + ids[-learned:]
        found.append(Example(ids, labels, sum(label != IGNORE for label in labels[1:]), row))
    return found


@torch.no_grad()
def scored(network: PreTrainedModel, rows: Sequence[Example], *, batch: int, packed: bool) -> dict[str, float]:
    task, scores = Instruction(), TokenScores()
    task.packed = packed
    order = longest_first(range(len(rows)), [len(row.ids) for row in rows])
    for start in range(0, len(order), batch):
        for micro in split_micro_batches(
            order[start : start + batch], [len(r.ids) for r in rows], micro_tokens=120, packed=packed
        ):
            laid = task.collate([rows[i] for i in micro])
            scores.update(task.logits(network, laid), laid)
    return scores.compute()


@torch.no_grad()
def truth(network: PreTrainedModel, rows: Sequence[Example]) -> float:
    """The mean over all learned tokens, each row by itself through the plain model."""
    total = 0.0
    for row in rows:
        logits = network(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, :-1]
        labels = torch.tensor(row.target[1:])  # type: ignore[index]
        total += float(functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum"))
    return total / sum(row.loss_weight for row in rows)


def test_the_loss_of_a_split_does_not_depend_on_the_evaluation_batch_size() -> None:
    network, rows = model(), examples()

    losses = [scored(network, rows, batch=batch, packed=False)["loss"] for batch in range(1, 12)]

    assert losses == pytest.approx([truth(network, rows)] * 11, rel=1e-6)


def test_a_mean_of_batch_means_would_be_caught() -> None:
    # Given what other trainers report: each batch counts the same, however many tokens it teaches
    network, rows = model(), examples()
    parts = [scored(network, rows[start : start + 4], batch=4, packed=False)["loss"] for start in range(0, 11, 4)]

    assert abs(sum(parts) / len(parts) - truth(network, rows)) > 1e-3


def test_the_loss_of_a_split_is_the_same_padded_or_laid_end_to_end() -> None:
    rows, padded = examples(), scored(model(), examples(), batch=4, packed=False)
    network = model()
    assert supports_packing(network, DOCUMENT_KERNEL)

    packed = scored(network, rows, batch=4, packed=True)

    assert packed == pytest.approx(padded, rel=1e-5)


def test_a_loss_that_is_not_a_number_is_shown_and_never_left_out() -> None:
    task, scores, rows = Instruction(), TokenScores(), examples()
    for row in rows:
        micro = task.collate([row])
        logits = torch.zeros(int(row.loss_weight), 50)
        if row.row == 5:
            logits[0] = math.nan
        scores.update(logits, micro)

    assert math.isnan(scores.compute()["loss"])


def test_a_split_that_teaches_nothing_has_no_loss_instead_of_zero() -> None:
    scores = TokenScores()

    assert math.isnan(scores.compute()["loss"]) and math.isnan(scores.compute()["token_accuracy"])


def test_scoring_keeps_sums_and_no_logits_however_many_rows_there_are() -> None:
    def held(count: int) -> int:
        task, scores = Instruction(), TokenScores()
        for row in examples() * count:
            scores.update(torch.zeros(int(row.loss_weight), 50), task.collate([row]))
        return len(pickle.dumps(scores))  # with whatever it may hold on to

    assert held(20) < held(1) + 100  # bytes: the counts are longer numbers
