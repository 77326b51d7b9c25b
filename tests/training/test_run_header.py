"""The lines that a run prints before it trains."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.tiny_runs import settings
from tunelab.training.components import RunComponents, count_planned_steps
from tunelab.training.run_header import rate_line


@pytest.mark.parametrize(
    ("words", "length"),
    [
        (["max_epochs=1"], "8 steps, 1 epoch"),
        (["max_epochs=3"], "24 steps, 3 epochs"),
        (["max_epochs=3", "max_steps=12"], "12 steps, 1.5 epochs"),
        (["max_epochs=2", "trainer.limit_train_batches=4"], "8 steps, 2 epochs"),
    ],
)
def test_an_epoch_whose_last_step_is_short_counts_as_one(words: list[str], length: str) -> None:
    chosen = settings("batch_size=32", *words)
    components: Any = SimpleNamespace(settings=chosen, epoch_rows=230)

    line = rate_line(cast(RunComponents, components), count_planned_steps(chosen, 230))

    assert line.endswith(f"batch 32, {length}")
