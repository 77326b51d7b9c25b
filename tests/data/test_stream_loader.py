"""Steps of a stream: the same on any number of processes, each row once a pass, in an order that the seed fixes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from torch import zeros

from tunelab.data.data_sources import EncodedBlock
from tunelab.data.examples import Example, MicroBatch
from tunelab.data.protocols import Record
from tunelab.data.stream_loader import StepPlanner, StreamLoader
from tunelab.data.token_store import TokenBlock
from tunelab.errors import ConfigError, DataError


class Numbers:
    """A stream of rows that are numbers."""

    unit = "row"

    def __init__(self, count: int) -> None:
        self.count, self.passed = count, 0

    def rows(self, place: dict[str, Any]) -> Iterator[tuple[int, Record]]:
        self.passed = int(place.get("passed", 0))
        while self.passed < self.count:
            self.passed += 1
            yield self.passed, {"number": self.passed}

    def place(self) -> dict[str, Any]:
        return {"passed": self.passed}


def encode(rows: Sequence[Record]) -> EncodedBlock:
    """Examples as long as their numbers say; multiples of ten are dropped as too long."""
    kept = [row["number"] for row in rows if row["number"] % 10]
    examples = [Example([number] * (1 + number % 7), [number] * (1 + number % 7), 1.0, number) for number in kept]
    nothing = TokenBlock.of([])
    return EncodedBlock(nothing, examples, [], [], len(kept), 0, 0, 0, len(rows) - len(kept), (0, 0), 0)


def loader(count: int = 23, rank: int = 0, ranks: int = 1, **more: Any) -> StreamLoader:
    def collate(examples: list[Example]) -> MicroBatch:
        rows = np.array([example.row for example in examples])
        return MicroBatch(zeros(1), zeros(1), zeros(1), row_indices=rows)  # type: ignore[arg-type]

    planner = StepPlanner(
        collate=collate, filler=Example([0], [-100], 0, -1), micro_tokens=12, packed=False, rank=rank,
        world_size=ranks, pass_cost=None, equal_passes=ranks > 1,
    )  # fmt: skip
    settings: dict[str, Any] = {
        "columns": frozenset({"number"}), "name": "numbers", "steps": 9, "batch_size": 4, "seed": 1, "shuffle_rows": 5,
        "skip_bad": False, "limit": None, "report": lambda counts, faults: None, **more,
    }  # fmt: skip
    return StreamLoader(Numbers(count), encode, planner, **settings)


def rows_of(steps: Iterator[Any], count: int) -> list[list[int]]:
    return [[int(row) for micro in step.micro_batches for row in micro.row_indices] for step in islice(steps, count)]


def test_each_row_comes_once_a_pass_and_blocks_are_shuffled() -> None:
    flat = [row for step in rows_of(iter(loader(batch_size=1)), 63) for row in step]
    one_pass = [number for number in range(1, 24) if number % 10]
    for start in range(0, 63, 21):
        assert sorted(flat[start : start + 21]) == one_pass
    assert flat[:21] != one_pass and flat[:21] != flat[21:42], "a later pass has another order"
    assert {*flat[:5]} == {1, 2, 3, 4, 5}
    assert [row for step in rows_of(iter(loader(shuffle_rows=1, batch_size=1)), 21) for row in step] == one_pass


@pytest.mark.parametrize("limit", [None, 3, 7])
@pytest.mark.parametrize("block", [1, 5, 100])
def test_a_loader_goes_on_at_any_step_as_one_that_never_stopped(block: int, limit: int | None) -> None:
    more = {"shuffle_rows": block, "limit": limit}
    expected = rows_of(iter(loader(**more)), 15)
    for done in range(15):
        first, second = loader(**more), loader(**more)
        assert rows_of(iter(first), done) == expected[:done]
        second.load_state_dict(first.state_dict())
        assert rows_of(iter(second), 15 - done) == expected[done:]
    whole = loader(**more)
    rows_of(iter(whole), 15)
    assert whole.counts == second.counts


def test_processes_share_the_steps_of_one() -> None:
    alone = rows_of(iter(loader()), 12)
    shared = [rows_of(iter(loader(rank=rank, ranks=2)), 12) for rank in range(2)]
    for step, one, two in zip(alone, *shared, strict=True):
        assert sorted(row for row in one + two if row >= 0) == sorted(step)


def test_another_order_and_a_source_without_rows_are_refused() -> None:
    state = loader().state_dict()
    for change in ({"seed": 2}, {"shuffle_rows": 6}, {"batch_size": 5}, {"limit": 9}):
        with pytest.raises(ConfigError, match=f"{next(iter(change))} was"):
            loader(**change).load_state_dict(state)
    with pytest.raises(DataError, match="none of its 0 rows can be learned from"):
        rows_of(iter(loader(count=0)), 1)


def test_drops_are_said_each_time_that_they_have_doubled() -> None:
    said: list[Mapping[str, int]] = []
    rows_of(iter(loader(report=lambda counts, faults: said.append(dict(counts)))), 40)
    assert [counts["too_long"] for counts in said] == [1, 3, 7, 15]
