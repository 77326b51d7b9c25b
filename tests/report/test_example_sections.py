"""Sections of a report on single rows: which way numbers are off, by how much, and which answers are worst."""

from typing import Any

import pytest

from tunelab.report import prediction_sections
from tunelab.report.document import Table
from tunelab.report.example_sections import answer_quality, mark_differences, worst_errors_section


@pytest.mark.parametrize(("shift", "way"), [(2.0, "above"), (-2.0, "below")])
def test_a_shift_is_told_with_its_way(shift: float, way: str) -> None:
    pairs = [(float(right), right + shift + 0.1 * (-1) ** right) for right in range(20)]

    (line,) = prediction_sections.regression_verdicts("", pairs)

    assert f"lie 2 {way} the truth" in line.text


def test_every_error_is_in_a_bar_and_the_largest_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[float]] = []
    plain = prediction_sections.bar_chart

    def watched(labels: list[str], bars: list[Any], **how: Any) -> Any:
        drawn.append(list(bars[0].values))
        return plain(labels, bars, **how)

    monkeypatch.setattr(prediction_sections, "bar_chart", watched)

    prediction_sections.error_histogram("", [float(error) for error in range(16)])

    assert drawn == [[1.0] * 14 + [2.0]]


def test_the_answers_least_alike_stand_first() -> None:
    rows = [
        {"row": place, "reference": "a", "prediction": "b", "exact_match": 0.0, "token_f1": f1, "rougeL": f1}
        for place, f1 in enumerate([0.5, 0.0, 0.9, 0.2])
    ]
    assert answer_quality(rows[0]) > answer_quality(rows[1])

    class Told:
        predictions, base_predictions = rows, ()

    (section,) = worst_errors_section(Told())  # type: ignore[arg-type]

    grid = next(block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in grid.rows] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("text", "reference", "marked"),
    [
        ("two red cows", "two cows", ["red "]),
        ("the price is 12.5", "the price is 12", [".5"]),
        ("我在北京", "我在上海", ["北京"]),
        ("", "something", []),
        ("same", "same", []),
    ],
)
def test_what_differs_from_the_reference_is_marked(text: str, reference: str, marked: list[str]) -> None:
    pieces = mark_differences(text, reference)

    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, right in pieces if not right] == marked
