"""Sums of judged answers: means, tables, and nothing that grows with the rows."""

from math import isnan
from statistics import fmean
from typing import Any

import pytest
import torch

from tunelab.data.examples import Batch, MicroBatch
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics import answer_metrics
from tunelab.tasks.metrics.answer_metrics import AnswerTotals, GenerationEvaluator
from tunelab.tasks.metrics.directions import TEXT_METRICS
from tunelab.tasks.multiple_choice import AnswerClasses
from tunelab.training.evaluate import PredictionCollector
from tunelab.training.final_results import LISTED_GROUPS, answer_group_tables
from tunelab.training.generation_eval import sample_rows


def predictions(count: int = 30) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for row in range(count):
        exact, f1, rouge = torch.rand(3, generator=draw).tolist()
        ended = "stop" if row % 4 else "length"
        scores = {"exact_match": float(exact > 0.5), "token_f1": f1, "rougeL": rouge, "ended": ended}
        found.append({"row": row, "family": "abc"[row % 3], **scores})
    return found


class Echo:
    """A task whose answers are the records themselves."""

    own_metrics = None
    metrics_of_answers = False
    predictions = Instruction.predictions  # answers, which need no logits

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.calls = 0

    def generate_predictions(self, model: Any, rows: list[int], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.asked += rows
        self.calls += 1
        return list(records)


def steps(rows: list[int], size: int) -> list[Batch]:
    """Steps of `size` rows, in two micro-batches each, and a filler."""
    found = []
    for start in range(0, len(rows), size):
        part = [*rows[start : start + size], -1]
        micros = [torch.tensor(half) for half in (part[: size // 2], part[size // 2 :]) if half]
        found.append(Batch([MicroBatch(half[:, None], half, half, half) for half in micros], 1.0))
    return found


def test_means_are_those_of_the_predictions_and_of_no_batch() -> None:
    rows = predictions()
    tally = AnswerTotals(AnswerClasses())
    wanted = {name: fmean(row[name] for row in rows) for name in list(TEXT_METRICS)[:3]}
    wanted["unfinished"] = fmean(row["ended"] != "stop" for row in rows)

    for size in (2, 7, 30):
        check = GenerationEvaluator(Echo(), tally, rows, range(len(rows)))  # type: ignore[arg-type]
        for step in steps(list(range(len(rows))), size):
            check.update(torch.nn.Identity(), step)  # type: ignore[arg-type]
        check.finish(torch.nn.Identity())  # type: ignore[arg-type]
        assert check.compute() == pytest.approx(wanted, rel=1e-12)


def test_only_the_chosen_rows_are_asked_and_only_sums_are_kept() -> None:
    rows, task = predictions(40), Echo()
    check = GenerationEvaluator(task, AnswerTotals(AnswerClasses()), rows, {3, 5, 8})  # type: ignore[arg-type]
    for step in steps(list(range(40)), 8):
        check.update(torch.nn.Identity(), step)  # type: ignore[arg-type]
    check.finish(torch.nn.Identity())  # type: ignore[arg-type]

    assert task.asked == [3, 5, 8]
    assert check.compute()["exact_match"] == pytest.approx(fmean(rows[i]["exact_match"] for i in (3, 5, 8)))
    assert sum(state.numel() for state in check.sums.metric_state.values()) == 8
    assert check.state_dict() == {}, "a checkpoint would carry the sums"
    check.reset()
    check.update(torch.nn.Identity(), steps([1, 2], 2)[0])  # type: ignore[arg-type]
    check.finish(torch.nn.Identity())  # type: ignore[arg-type]
    assert isnan(check.compute()["exact_match"])  # nothing was answered


@pytest.mark.parametrize(("most", "calls"), [(1024, 1), (16, 3)])
def test_rows_of_many_steps_are_answered_together(most: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_metrics, "ROWS_TOGETHER", most)
    rows, task = predictions(40), Echo()
    check = GenerationEvaluator(task, AnswerTotals(AnswerClasses()), rows, range(40))  # type: ignore[arg-type]
    collector = PredictionCollector(Echo(), torch.nn.Identity(), rows, range(40))  # type: ignore[arg-type]
    for step in steps(list(range(40)), 8):
        check.update(torch.nn.Identity(), step)  # type: ignore[arg-type]
        for micro in step.micro_batches:
            collector.update(torch.empty(0), micro)
    check.finish(torch.nn.Identity())  # type: ignore[arg-type]
    collector.finish()

    assert task.calls == calls and task.asked == list(range(40))
    assert collector.predictions == rows


def test_a_sample_is_fixed_by_content_and_seed_and_moves_next_to_nothing() -> None:
    contents = [(row, f"text {row}") for row in range(500)]
    taken = sample_rows(contents, 100, seed=0)

    assert len(taken) == 100
    assert sample_rows(contents[::-1], 100, seed=0) == taken
    assert sample_rows(contents, 100, seed=1) != taken
    assert sample_rows(contents, None, seed=0) == frozenset(range(500))
    assert sample_rows(contents, 0, seed=0) == frozenset()
    more = sample_rows([*contents, *((row, f"text {row}") for row in range(500, 510))], 100, seed=0)
    assert len(more & taken) >= 90


def test_tables_split_the_answers_by_family_and_source() -> None:
    rows = predictions()
    tables = AnswerTotals(AnswerClasses()).tables(rows)

    assert list(tables) == ["by_family"]
    for family, line in tables["by_family"].items():
        own = [row for row in rows if row["family"] == family]
        assert line["rows"] == len(own) == 10
        assert line["exact_match"] == pytest.approx(fmean(row["exact_match"] for row in own))
    mixed = AnswerTotals(AnswerClasses()).tables(
        [{**row, "source": "web" if row["row"] < 9 else "books"} for row in rows]
    )
    assert {name: line["rows"] for name, line in mixed["by_source"].items()} == {"books": 21, "web": 9}
    assert AnswerTotals(AnswerClasses()).tables([{"row": 0}]) == {}


def test_the_terminal_shows_the_largest_groups_and_says_what_it_leaves_out() -> None:
    tuned = {f"family {i}": {"rows": i, "exact_match": 0.5, "token_f1": 0.6, "rougeL": 0.7} for i in range(1, 16)}
    base = {name: {**line, "exact_match": 0.0} for name, line in tuned.items()}

    ((title, shown),) = answer_group_tables({"test": {"by_family": tuned}, "base": {"by_family": base}}).items()

    assert title == "test answers by family (3 smaller ones are in scores.json)"
    assert len(shown) == LISTED_GROUPS and next(iter(shown)) == "family 15" and "family 3" not in shown
    assert shown["family 15"] == {
        "rows": 15,
        "base exact_match": 0.0,
        "exact_match": 0.5,
        "token_f1": 0.6,
        "rougeL": 0.7,
    }
    assert answer_group_tables({"test": {"labels": []}}) == {}
