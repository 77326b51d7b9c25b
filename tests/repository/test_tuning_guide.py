"""The tuning guide tells the figures that its drawings and benchmarks hold."""

import csv
import importlib
import sys
from collections.abc import Iterator
from statistics import median
from types import ModuleType

import pytest

from support.paths import ROOT

GUIDE = (ROOT / "docs" / "tuning_guide.md").read_text(encoding="utf-8")


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "bench" / "search"))
    yield importlib.import_module("draw")
    for name in ("draw", "table", "problem"):
        sys.modules.pop(name, None)


def test_search_methods_and_shares_are_those_of_the_table(draw: ModuleType) -> None:
    regrets = draw.regrets_by_method()
    told = GUIDE[GUIDE.index("## Search methods") : GUIDE.index("## Effects")]
    assert [name for name, values in regrets.items() if f"{median(values):.3f}" not in told] == []
    told = GUIDE[GUIDE.index("## Effects") : GUIDE.index("## Thirteen steps")]
    shares = draw.variance_shares()
    assert f"{shares['lr'][0]:.2f} of the variance alone and {shares['lr'][1]:.2f}" in told
    assert all(f"{number:.2f}" in told for name in ("optimizer", "batch_size") for number in shares[name])
    assert draw.shares_drawing(shares).rstrip() + "\n" == (ROOT / "docs" / "figures" / "setting_shares.svg").read_text(
        encoding="utf-8"
    )


def test_the_steps_are_those_of_their_benchmark() -> None:
    told = GUIDE[GUIDE.index("## Thirteen steps") : GUIDE.index("### 1. ")]
    with (ROOT / "bench" / "steps" / "results.csv").open(encoding="utf-8") as file:
        losses = [float(line["loss"]) for line in csv.DictReader(file)]
    assert [loss for loss in losses if f"{loss:.3g}" not in told and f"{loss:.3f}" not in told] == []
    assert losses == sorted(losses, reverse=True)
