"""Which way a metric is better: those of this package, those that a class brings, and those nobody knows."""

from collections.abc import Mapping

import pytest

from tunelab.tasks.base import Scores
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.metrics.label_metrics import MulticlassScores, MultilabelScores
from tunelab.tasks.metrics.preference_metrics import PreferenceScores
from tunelab.tasks.metrics.regression_metrics import RegressionScores
from tunelab.tasks.metrics.token_metrics import TokenScores
from tunelab.tasks.preference_loss import PreferenceLoss

EMPTY = [
    TokenScores(),
    MulticlassScores(["a", "b"]),
    MultilabelScores(["a", "b"], 0.5),
    RegressionScores(["y"], [0.0], [1.0]),
    PreferenceScores(PreferenceLoss("sigmoid", 0.1)),
]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("scores", EMPTY, ids=lambda scores: type(scores).__name__)
def test_every_metric_that_is_computed_has_a_direction(scores: Scores) -> None:
    assert scores.compute().keys() <= scores.higher_is_better.keys()


@pytest.mark.parametrize(
    ("name", "direction"), [("val/loss", "min"), ("test/f1", "max"), ("train/time", "min"), ("val/a/loss", "min")]
)
def test_the_last_part_of_a_name_decides(name: str, direction: str) -> None:
    assert metric_direction(name) == direction


def test_a_class_makes_the_directions_of_its_metrics_known() -> None:
    assert metric_direction("val/made_up_error") is None

    class MadeUp(TokenScores):
        higher_is_better: Mapping[str, bool] = {"made_up_error": False}

    assert metric_direction("val/made_up_error") == "min"
