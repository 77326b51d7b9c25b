"""Metrics of one's own: classes of torchmetrics, updated once with all rows of a split in the user's terms."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, f1_score, mean_absolute_percentage_error, roc_auc_score
from torch import Tensor

from support.paths import ROOT
from support.tiny_runs import config, settings
from tunelab.config import plugins
from tunelab.config.schema import MetricsConfig, TargetConfig
from tunelab.data.examples import MicroBatch
from tunelab.errors import ConfigError
from tunelab.search.search_config import parse_search_config, resolve_objectives
from tunelab.tasks.base import Task
from tunelab.tasks.classification import Classification
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics import directions
from tunelab.tasks.metrics.answer_metrics import GenerationEvaluator
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.metrics.own_metrics import attach_metrics, full_scores
from tunelab.tasks.preference import Preference
from tunelab.tasks.regression import Regression
from tunelab.training.evaluate import summarize_predictions
from tunelab.training.trainer import resolve_monitor

LAB = """
import torch
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCohenKappa


class Seen(Metric):
    higher_is_better = False

    def update(self, predictions, targets):
        Seen.last = predictions, targets

    def compute(self):
        return torch.tensor(0.5)


class SeenProbabilities(Seen):
    takes = "probabilities"


class Undecided(Seen):
    higher_is_better = None


class Both(Seen):
    def compute(self):
        return {"low": torch.tensor(0.1), "high": 0.9}


class OneEach(Seen):
    def compute(self):
        return torch.tensor([0.1, 0.2, 0.3])


class Kappa(MulticlassCohenKappa):
    def __init__(self, **options):
        super().__init__(weights="quadratic", **options)


class Thing:
    pass
"""
TORCH = "torchmetrics.classification"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody's own, allowed."""
    (tmp_path / "metriclab.py").write_text(LAB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_packages", ["metriclab"])
    monkeypatch.setattr(directions, "_HIGHER_IS_BETTER", dict(directions._HIGHER_IS_BETTER))
    monkeypatch.delitem(sys.modules, "metriclab", raising=False)


def close(value: float) -> Any:
    """A value in single precision, in which torchmetrics counts."""
    return pytest.approx(value, rel=1e-5, abs=1e-6)


def labels(*names: str, multilabel: bool = False, threshold: float = 0.5) -> Classification:
    task = Classification("text", "label", multilabel=multilabel, threshold=threshold)
    task.label_names = list(names)
    return task


def block(**targets: str | dict[str, Any]) -> MetricsConfig:
    faults = list[str]()
    parsed = MetricsConfig.parse(
        {name: {"_target_": one} if isinstance(one, str) else one for name, one in targets.items()}, "metrics", faults
    )
    assert not faults
    return parsed


def scored(task: Task, logits: Tensor, targets: Tensor, *, parts: int = 1, **targets_of: Any) -> dict[str, float]:
    """The scores of rows that come in some parts, in any order, with fillers between them."""
    attach_metrics(task, block(**targets_of))
    scores = full_scores(task)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(parts))
    for part in order.chunk(parts):
        rows = torch.cat((part, torch.tensor([-1])))
        filled = torch.cat((targets[part], torch.zeros_like(targets[:1])))
        micro = MicroBatch(torch.zeros(len(rows), 1), torch.ones(len(rows)), filled, rows)
        scores.update(torch.cat((logits[part], logits[:1])), micro)
    return scores.compute()


def rows_of(count: int, width: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(count, width, generator=draw), torch.randint(width, (count,), generator=draw)


@pytest.mark.parametrize("parts", [1, 7])
def test_metrics_of_torchmetrics_agree_with_scikit_learn_however_rows_are_batched(parts: int) -> None:
    logits, true = rows_of(40, 3)
    scores = scored(
        labels("a", "b", "c"), logits, true, parts=parts, kappa=f"{TORCH}.CohenKappa", own="metriclab.Kappa",
        auroc=f"{TORCH}.MulticlassAUROC", macro={"_target_": f"{TORCH}.MulticlassF1Score", "average": "macro"},
    )  # fmt: skip
    predicted = logits.argmax(1)

    assert scores["kappa"] == close(cohen_kappa_score(true, predicted))
    assert scores["own"] == close(cohen_kappa_score(true, predicted, weights="quadratic"))
    assert scores["auroc"] == close(roc_auc_score(true, logits.double().softmax(1), multi_class="ovr"))
    assert scores["macro"] == close(f1_score(true, predicted, average="macro"))
    assert scores["accuracy"] == pytest.approx(float((true == predicted).float().mean()))  # those of the task stay


def test_two_classes_and_several_labels_take_the_metrics_made_for_them() -> None:
    logits, true = rows_of(30, 2)
    scores = scored(labels("no", "yes"), logits, true, binary=f"{TORCH}.BinaryAUROC", f=f"{TORCH}.BinaryF1Score")
    assert scores["binary"] == pytest.approx(roc_auc_score(true, logits.softmax(1)[:, 1]))
    assert scores["f"] == pytest.approx(f1_score(true, logits.argmax(1)))

    many = (torch.rand(30, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    wide, _ = rows_of(30, 3)
    task = labels("a", "b", "c", multilabel=True, threshold=0.3)
    scores = scored(task, wide, many, f=f"{TORCH}.MultilabelF1Score", general=f"{TORCH}.F1Score", seen="metriclab.Seen")
    expected = f1_score(many, wide.sigmoid() >= 0.3, average="macro")
    assert scores["f"] == pytest.approx(expected) and scores["general"] == pytest.approx(
        f1_score(many, wide.sigmoid() >= 0.3, average="micro")
    )
    predictions, targets = sys.modules["metriclab"].Seen.last
    assert predictions.tolist() == (wide.sigmoid() >= 0.3).long().tolist() and targets.tolist() == many.tolist()


def test_a_metric_gets_class_indices_in_the_order_of_rows_unless_it_says_that_it_takes_probabilities() -> None:
    logits, true = rows_of(9, 3)
    scored(labels("a", "b", "c"), logits, true, parts=4, seen="metriclab.Seen")
    predictions, targets = sys.modules["metriclab"].Seen.last
    assert predictions.tolist() == logits.argmax(1).tolist() and targets.tolist() == true.tolist()

    scored(labels("a", "b", "c"), logits, true, parts=4, seen="metriclab.SeenProbabilities")
    torch.testing.assert_close(sys.modules["metriclab"].Seen.last[0], logits.double().softmax(1))


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_are_in_the_units_of_the_user(count: int) -> None:
    task = Regression("text", ["a", "b"][:count])
    task.mean, task.std = [100.0, 5.0][:count], [20.0, 2.0][:count]
    true = np.random.default_rng(0).uniform(50, 150, (30, count))
    predicted = true + np.random.default_rng(1).normal(0, 5, true.shape)
    logits, targets = (
        (torch.tensor(table) - torch.tensor(task.mean)) / torch.tensor(task.std) for table in (predicted, true)
    )
    scores = scored(
        task, logits, targets, parts=3, mape="torchmetrics.regression.MeanAbsolutePercentageError",
        r="torchmetrics.regression.PearsonCorrCoef", seen="metriclab.Seen",
    )  # fmt: skip

    assert scores["mape"] == pytest.approx(mean_absolute_percentage_error(true, predicted), rel=1e-5)
    pearson = np.mean([np.corrcoef(true[:, i], predicted[:, i])[0, 1] for i in range(count)])
    assert scores["r"] == pytest.approx(pearson, rel=1e-5)
    seen = sys.modules["metriclab"].Seen.last[1].numpy()
    np.testing.assert_allclose(seen, true[:, 0] if count == 1 else true)


def test_answers_are_scored_as_texts_in_validation_and_in_test() -> None:
    task = Instruction()
    own = {"bleu": "torchmetrics.text.BLEUScore", "wer": "torchmetrics.text.WordErrorRate", "seen": "metriclab.Seen"}
    attach_metrics(task, block(**own))
    lines = [
        {"row": 1, "prediction": "yes no", "reference": "yes yes"},
        {"row": 0, "prediction": "the cat sat on a mat", "reference": "the cat sat on a mat"},
        {"row": 2},  # plain text has no answer
    ]

    scores, _ = summarize_predictions(task, lines)

    assert sys.modules["metriclab"].Seen.last == (
        ["the cat sat on a mat", "yes no"],
        ["the cat sat on a mat", "yes yes"],
    )
    assert scores["wer"] == pytest.approx(1 / 8) and 0.7 < scores["bleu"] < 1
    evaluator = GenerationEvaluator(task, task.totals, [], [])
    evaluator.answers = lines
    assert evaluator.compute()["wer"] == scores["wer"]
    evaluator.reset()
    assert "wer" not in evaluator.compute()


def test_pairs_give_the_rewards_of_both_answers() -> None:
    task = Preference(beta=0.5)
    logits, reference = torch.randn(5, 2), torch.randn(5, 2)
    attach_metrics(task, block(seen="metriclab.Seen"))
    scores = full_scores(task)
    targets = torch.full((10, 4), 7)
    micro = MicroBatch(targets, torch.full((10,), 4), targets, torch.arange(5), reference_logprobs=reference)
    scores.update(logits, micro)
    scores.compute()

    chosen, rejected = sys.modules["metriclab"].Seen.last
    torch.testing.assert_close(torch.stack((chosen, rejected), 1).float(), 0.5 * (logits - reference))


def test_a_metric_may_give_several_scores_by_name_and_each_may_be_monitored() -> None:
    logits, true = rows_of(9, 3)
    task = labels("a", "b", "c")

    scores = scored(task, logits, true, both="metriclab.Both")

    assert (scores["both_low"], scores["both_high"]) == (close(0.1), close(0.9))
    assert resolve_monitor(settings("monitor=val/both_low"), task) == ("val/both_low", "min")
    with pytest.raises(ConfigError, match="choose one of .*val/both_low, val/both_high"):
        resolve_monitor(settings("monitor=val/both"), task)


def test_what_cannot_score_this_task_is_refused_before_training_with_the_reason() -> None:
    task = labels("a", "b", "c")
    metrics = {
        "accuracy": "metriclab.Seen", "thing": "metriclab.Thing", "each": "metriclab.OneEach",
        "two": f"{TORCH}.BinaryAUROC", "words": "torchmetrics.text.BLEUScore", "os": "os.system",
        "functional": "torchmetrics.functional.accuracy", "wrong": {"_target_": "metriclab.Kappa", "num_classes": "x"},
    }  # fmt: skip
    with pytest.raises(ConfigError) as fault:
        attach_metrics(task, block(**metrics))

    message = str(fault.value)
    for part in (
        "metrics.accuracy: this run has a score of that name already", "metrics.thing: metriclab.Thing is no metric",
        "metrics.each: metriclab.OneEach gives 3 numbers", "metrics.two: .* made for two classes, and there are 3",
        "metrics.words: torchmetrics.text.BLEUScore cannot score data.task=classification",
        r"updated with \(predictions, targets\): class indices", "metrics.os: _target_ 'os.system' is not allowed",
        "metrics.functional: .*not allowed", "metrics.wrong: metriclab.Kappa refuses its arguments",
    ):  # fmt: skip
        assert re.search(part, message), part


def test_a_metric_without_a_direction_is_followed_only_with_one() -> None:
    task = labels("a", "b")
    attach_metrics(task, block(mse="metriclab.Undecided"))
    assert metric_direction("val/mse") is None  # whatever a score of that name means elsewhere

    with pytest.raises(ConfigError, match="nothing says which way"):
        resolve_monitor(settings("monitor=val/mse"), task)
    assert resolve_monitor(settings("monitor=val/mse", "mode=max"), task) == ("val/mse", "max")
    attach_metrics(task, block(mse="metriclab.Seen"))
    assert metric_direction("val/mse") == "min"


def test_a_search_knows_the_direction_of_a_metric_without_data() -> None:
    words = [
        "+metrics.a={_target_: metriclab.Seen}", "+metrics.b={_target_: torchmetrics.classification.CohenKappa}",
        "+metrics.c={_target_: metriclab.Undecided}", "+metrics.d={_target_: metriclab.Kappa}",
    ]  # fmt: skip

    def modes(*objectives: str) -> list[str]:
        return resolve_objectives(config(*words), parse_search_config({"objectives": list(objectives)}))[1]

    assert modes("val/a", "val/b", "val/d", "val/f1", "max:val/c") == ["min", "max", "max", "max", "max"]
    with pytest.raises(ConfigError, match="nothing says which way val/c is better; write min:val/c or max:val/c"):
        modes("val/c")


def test_a_block_of_metrics_holds_classes_only() -> None:
    assert settings("metrics=cohen_kappa").metrics.targets["cohen_kappa"] == TargetConfig(
        target="torchmetrics.classification.MulticlassCohenKappa", arguments={"weights": None}
    )
    with pytest.raises(ConfigError, match=r"metrics.kappa is no setting; a metric names its class: \+metrics.kappa="):
        settings("+metrics.kappa=3")
    with pytest.raises(ConfigError, match=r"metrics._target_=x.Y has no name.*\+metrics@metrics.mine=FILE"):
        settings("+metrics._target_=x.Y")


@pytest.mark.slow
def test_two_processes_give_the_value_of_one(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, torch, torch.distributed as d\n"
        "from test_own_metrics import MicroBatch, attach_metrics, block, full_scores, labels, rows_of\n"
        "from tunelab.config import plugins\n"
        "plugins._packages = ['metriclab']\n"
        "rank = int(sys.argv[1])\n"
        f"d.init_process_group('gloo', init_method='file://{tmp_path}/meet', rank=rank, world_size=2)\n"
        "logits, true = rows_of(11, 3)\n"
        "task = labels('a', 'b', 'c')\n"
        "attach_metrics(task, block(kappa='torchmetrics.classification.CohenKappa', seen='metriclab.Seen'))\n"
        "scores = full_scores(task)\n"
        "part = torch.arange(11)[rank::2]\n"
        "scores.update(logits[part], MicroBatch(part[:, None], part, true[part], part))\n"
        "kappa = scores.compute()['kappa']\n"
        "print(kappa, sys.modules['metriclab'].Seen.last[1].tolist() == true.tolist())\n"
    )
    places = [str(ROOT / "src"), str(ROOT / "tests"), str(Path(__file__).parent), str(tmp_path)]
    command = f"import sys; sys.path[:0] = {places}; exec(open(sys.argv.pop(1)).read())"
    ranks = [
        subprocess.Popen([sys.executable, "-c", command, str(script), str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    logits, true = rows_of(11, 3)

    for process in ranks:
        kappa, in_order = process.communicate(timeout=500)[0].split()
        assert float(kappa) == close(cohen_kappa_score(true, logits.argmax(1))) and in_order == "True"
