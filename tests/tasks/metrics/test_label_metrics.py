"""Scores of classification against scikit-learn."""

import pickle

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from tunelab.data.examples import MicroBatch
from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.label_metrics import MulticlassScores, MultilabelScores

NAMES = ["a", "b", "c", "d", "e"]


def feed(scores: Scores, logits: Tensor, targets: Tensor, size: int) -> dict[str, float]:
    """Score in micro-batches of `size` rows, with a filler at the end."""
    for start in range(0, len(logits), size):
        part = slice(start, start + size)
        rows = torch.arange(len(logits))[part]
        one = torch.ones(len(rows), dtype=torch.int64)
        scores.update(logits[part], MicroBatch(one[:, None], one, targets[part], rows))
    one = torch.ones(1, dtype=torch.int64)
    scores.update(torch.full_like(logits[:1], 9.0), MicroBatch(one[:, None], one, targets[:1], -one))
    return scores.compute()


@pytest.fixture
def classes() -> tuple[Tensor, Tensor]:
    """Logits and labels; class 3 has no record, class 4 is never predicted."""
    torch.manual_seed(0)
    targets = torch.tensor([0, 1, 2, 4])[torch.randint(4, (200,))]
    logits = torch.randn(200, 5) + functional.one_hot(targets, 5)
    logits[:, 4] = -20
    return logits, targets


@pytest.mark.parametrize("size", [1, 7, 200])
def test_class_scores_are_those_of_scikit_learn_for_every_micro_batch(size, classes):
    logits, targets = classes
    found = feed(MulticlassScores(NAMES), logits, targets, size)
    real, guess = targets.numpy(), logits.argmax(1).numpy()
    macro = {"average": "macro", "zero_division": 0}
    assert found == pytest.approx(
        {
            "loss": metrics.log_loss(real, logits.double().softmax(1).numpy(), labels=range(5)),
            "accuracy": metrics.accuracy_score(real, guess),
            "f1": metrics.f1_score(real, guess, **macro),
            "precision": metrics.precision_score(real, guess, **macro),
            "recall": metrics.recall_score(real, guess, **macro),
            "mcc": metrics.matthews_corrcoef(real, guess),
            "f1_all": metrics.f1_score(real, guess, labels=range(5), **macro),
        },
        rel=1e-6,
    )


def test_macro_scores_are_scikit_learns_where_the_split_lacks_classes_or_a_prediction_is_in_none_of_them():
    real, guess = [0, 0, 1, 1], [0, 0, 1, 3]  # 2 and 4 never occur, 3 is only predicted
    found = feed(MulticlassScores(NAMES), functional.one_hot(torch.tensor(guess), 5).float(), torch.tensor(real), 4)
    for name, score in (("f1", metrics.f1_score), ("recall", metrics.recall_score)):
        assert found[name] == pytest.approx(score(real, guess, average="macro"))
    assert found["precision"] == pytest.approx(metrics.precision_score(real, guess, average="macro", zero_division=0))
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3) and found["f1_all"] == pytest.approx((1 + 2 / 3) / 5)
    perfect = feed(MulticlassScores(NAMES), functional.one_hot(torch.tensor(real), 5).float(), torch.tensor(real), 4)
    assert perfect["f1"] == perfect["precision"] == perfect["recall"] == 1


def test_scores_of_no_row_are_no_numbers():
    found = MulticlassScores(NAMES).compute()
    assert all(np.isnan(found[name]) for name in ("accuracy", "f1", "f1_all", "precision", "recall"))


def test_the_report_holds_the_confusion_matrix_and_each_class_of_scikit_learn(classes):
    logits, targets = classes
    scores = MulticlassScores(NAMES)
    feed(scores, logits, targets, 50)
    report = scores.report()
    real, guess = targets.numpy(), logits.argmax(1).numpy()
    table = metrics.precision_recall_fscore_support(real, guess, labels=range(5), zero_division=0)
    assert report["labels"] == NAMES
    assert report["confusion"] == metrics.confusion_matrix(real, guess, labels=range(5)).tolist()
    ours = [[row[key] for row in report["per_class"]] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(ours, np.array(table))
    assert [row["label"] for row in report["per_class"]] == NAMES


def test_correlation_is_zero_when_every_prediction_is_the_same():
    targets = torch.tensor([0, 1, 1, 0])
    found = feed(MulticlassScores(["a", "b"]), torch.tensor([[2.0, 0.0]] * 4), targets, 4)
    assert found["mcc"] == metrics.matthews_corrcoef(targets.numpy(), [0] * 4) == 0
    assert found["accuracy"] == 0.5


@pytest.mark.parametrize("size", [1, 7, 200])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_multilabel_scores_are_those_of_scikit_learn_for_every_micro_batch(size, threshold):
    torch.manual_seed(0)
    targets = (torch.rand(200, 5) < torch.tensor([0.5, 0.2, 0.1, 0.0, 0.3])).float()
    logits = torch.randn(200, 5) + 2 * targets - 1
    logits[:, 4] = -20
    scores = MultilabelScores(NAMES, threshold)
    found = feed(scores, logits, targets, size)
    real, guess = targets.int().numpy(), (logits.sigmoid() >= threshold).int().numpy()
    macro = {"average": "macro", "zero_division": 0}
    loss = functional.binary_cross_entropy_with_logits(logits.double(), targets.double())
    assert found == pytest.approx(
        {
            "loss": float(loss),
            "accuracy": metrics.accuracy_score(real, guess),
            "f1": metrics.f1_score(real, guess, **macro),
            "precision": metrics.precision_score(real, guess, **macro),
            "recall": metrics.recall_score(real, guess, **macro),
            "micro_f1": metrics.f1_score(real, guess, average="micro", zero_division=0),
        }
    )
    assert scores.report()["confusion"] == metrics.multilabel_confusion_matrix(real, guess).tolist()


@pytest.mark.parametrize("scores", [MulticlassScores(NAMES), MultilabelScores(NAMES, 0.5)])
def test_reset_forgets_everything(scores, classes):
    logits, targets = classes
    if isinstance(scores, MultilabelScores):
        targets = functional.one_hot(targets, 5).float()
    first = feed(scores, logits, targets, 50)
    scores.reset()
    assert feed(scores, logits, targets, 50) == first


@pytest.mark.parametrize("scores", [MulticlassScores(NAMES), MultilabelScores(NAMES, 0.5)])
def test_the_state_does_not_grow_with_the_split(scores, classes):
    logits, targets = classes
    if isinstance(scores, MultilabelScores):
        targets = functional.one_hot(targets, 5).float()

    def held(times: int) -> int:
        scores.reset()
        for _ in range(times):
            feed(scores, logits, targets, 50)
        return len(pickle.dumps(scores))  # with whatever it may hold on to

    once = held(1)
    assert held(20) < once + 100  # bytes: the counts are longer numbers


def test_broken_logits_show_in_the_loss(classes):
    logits, targets = classes
    logits[3, 0] = float("nan")
    assert np.isnan(feed(MulticlassScores(NAMES), logits, targets, 50)["loss"])
