"""R-Drop: the divergence is the one of its authors, and the loss is that of one pass where both agree."""

import pytest
import torch
from torch.nn import functional

from support.micro_batches import instruction, micro
from support.tiny_models import decoder
from tunelab.config.schema import RegularizationConfig
from tunelab.data.examples import MicroBatch
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.regression import Regression
from tunelab.training.loss import TrainingLoss, rdrop_divergence, symmetric_kl


def two(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)


def labelled(rows: list[int], targets: torch.Tensor) -> MicroBatch:
    return MicroBatch(torch.ones(len(rows), 1), torch.ones(len(rows)), targets, torch.tensor(rows))


def test_the_divergence_is_the_mean_of_both_kullback_leibler_divergences() -> None:
    one, other = (logits.log_softmax(-1) for logits in two(6, 11))

    theirs = (
        functional.kl_div(one, other, log_target=True, reduction="none").sum(-1)
        + functional.kl_div(other, one, log_target=True, reduction="none").sum(-1)
    ) / 2

    torch.testing.assert_close(symmetric_kl(one, other), theirs)


@pytest.mark.parametrize("task", [Classification("text", "label"), Regression("text", "y")], ids=["labels", "numbers"])
def test_fillers_add_nothing_to_the_divergence(task: Task) -> None:
    one, other = two(3, 4)
    real = rdrop_divergence(task, one[:2], other[:2], labelled([0, 1], torch.zeros(2)))

    torch.testing.assert_close(rdrop_divergence(task, one, other, labelled([0, 1, -1], torch.zeros(3))), real)


def test_several_labels_are_compared_one_by_one() -> None:
    one, other = two(3, 4)
    theirs = 0.0
    for left, right in zip(one.flatten(), other.flatten(), strict=True):
        p, q = (torch.distributions.Bernoulli(logits=logit) for logit in (left, right))
        theirs += float(torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)) / 2

    task = Classification("text", "label", multilabel=True)
    found = rdrop_divergence(task, one, other, labelled([0, 1, 2], torch.zeros(3, 4)))
    assert float(found) == pytest.approx(theirs / 4, rel=1e-5)


def test_numbers_are_compared_by_their_squared_difference() -> None:
    one, other = two(5, 2)
    found = rdrop_divergence(Regression("text", "y"), one, other, labelled(list(range(5)), torch.zeros(5, 2)))

    torch.testing.assert_close(found, functional.mse_loss(one, other) * 5)


def test_two_passes_cost_their_mean_and_the_price_of_disagreement() -> None:
    model, rows, task = decoder("llama", attention_dropout=0.5).train(), micro(), instruction()
    torch.manual_seed(1)
    _, loss = TrainingLoss(task, model, RegularizationConfig(rdrop=3.0))(rows)
    task.logits(model, rows)

    torch.manual_seed(1)
    one, other = task.logits(model, rows), task.logits(model, rows)
    plain = (task.loss_sum(one, rows) + task.loss_sum(other, rows)) / 2
    apart = symmetric_kl(one.log_softmax(-1), other.log_softmax(-1)).sum()
    assert apart.item() > 0.01
    torch.testing.assert_close(loss, plain + 3.0 * apart)
