"""Predictions as trackers show them: the worst first, as a table."""

import torch

from tunelab.tracking.base import RunResults, markdown_table, records_table, worst_predictions
from tunelab.tracking.wandb_logger import make_histogram


def test_wrong_labels_come_before_right_ones_and_keep_their_order() -> None:
    rows = [{"row": n, "label": "a", "prediction": said} for n, said in enumerate("abab")]
    assert [row["row"] for row in worst_predictions(rows, 3)] == [1, 3, 0]


def test_generated_answers_are_judged_by_exact_match_and_numbers_by_distance() -> None:
    answers = [{"row": n, "prediction": "x", "exact_match": hit} for n, hit in enumerate([1.0, 0.0])]
    assert [row["row"] for row in worst_predictions(answers, 9)] == [1, 0]
    numbers = [{"row": n, "target": 1.0, "prediction": said} for n, said in enumerate([1.5, 9.0, 1.0])]
    assert [row["row"] for row in worst_predictions(numbers, 2)] == [1, 0]
    several = [{"row": n, "target": {"a": 1.0}, "prediction": {"a": said}} for n, said in enumerate([1.0, 2.0])]
    assert [row["row"] for row in worst_predictions(several, 2)] == [1, 0]


def test_a_table_has_every_column_and_cells_that_are_plain() -> None:
    columns, lines = records_table([{"a": 1, "p": {"x": 0.25, "y": 0.75}}, {"b": ["u", "v"], "a": None}])
    assert columns == ["a", "p", "b"]
    assert lines == [[1, 0.75, None], [None, None, "u, v"]]


def test_a_markdown_table_holds_where_cells_have_bars_and_line_breaks() -> None:
    text = markdown_table(["a", "b"], [["x|y", "1\n2"]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | 1 ⏎ 2 |"]


def test_a_histogram_counts_the_finite_values() -> None:
    drawn = make_histogram(torch.tensor([[1.0, 2.0], [float("inf"), float("nan")]]))
    assert sum(drawn.histogram) == 2
    assert make_histogram(torch.tensor([float("nan")])).histogram.count(0) == len(
        make_histogram(torch.zeros(0)).histogram
    )


def test_nothing_to_show_is_a_value_too() -> None:
    assert RunResults().predictions == ()
