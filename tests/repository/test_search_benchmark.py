"""The search benchmark replays the same each time, and its committed results meet what is claimed of the searches."""

import csv
import importlib
import sys
from collections.abc import Iterator
from statistics import mean, median
from types import ModuleType

import optuna
import pytest

from support.paths import ROOT

HERE = ROOT / "bench" / "search"
MODULES = ("problem", "made_up", "surface", "table", "heldout", "replay", "run")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    sys.path.insert(0, str(HERE))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield importlib.import_module("run")
    optuna.logging.set_verbosity(verbosity)
    sys.path.remove(str(HERE))
    for name in MODULES:
        sys.modules.pop(name, None)


def committed(problem: str) -> dict[str, list[dict[str, str]]]:
    """The committed lines by method."""
    found: dict[str, list[dict[str, str]]] = {}
    with (HERE / f"results_{problem}.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            found.setdefault(line["method"], []).append(line)
    return found


def middle(lines: list[dict[str, str]], column: str) -> float:
    return median(float(line[column]) for line in lines)


@pytest.mark.parametrize("problem", ["surface", "table"])
@pytest.mark.parametrize("method", ["random, twice the budget", "tpe + hyperband, half the budget", "evolution"])
def test_a_replay_gives_the_committed_lines(bench: ModuleType, problem: str, method: str) -> None:
    lines = bench.measure(problem, bench.PROBLEMS[problem](), method, 2)
    assert lines == committed(problem)[method][:2]


def test_a_replay_of_the_held_out_problem_gives_the_committed_lines(bench: ModuleType) -> None:
    lines = bench.measure("heldout", bench.PROBLEMS["heldout"](), "random, twice the budget", 2)
    assert lines == committed("heldout")["random, twice the budget"][:2]


def test_the_readme_tells_the_held_out_figures_as_they_are(bench: ModuleType) -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for method in ("auto", "random", "random, twice the budget", "tpe"):
        regrets = [float(line["regret"]) for line in committed("heldout")[method]]
        told = f"{median(regrets):.4f} / {bench.quantile90(regrets):.4f} | {mean(regrets):.4f}".replace("0.", ".")
        assert len(regrets) == 20 and told in text, method


@pytest.mark.parametrize("problem", ["surface", "table"])
def test_auto_beats_random_search_with_twice_its_budget(problem: str) -> None:
    lines = committed(problem)
    auto, random = lines["auto"], lines["random, twice the budget"]
    assert len(auto) == len(random) == 20
    assert middle(auto, "regret") < middle(random, "regret")
    assert middle(random, "epochs") == 2 * middle(auto, "epochs")


@pytest.mark.parametrize("problem", ["surface", "table", "heldout"])
def test_hyperband_reaches_what_tpe_finds_without_it_in_half_the_epochs(problem: str) -> None:
    lines = committed(problem)
    half, whole = lines["tpe + hyperband, half the budget"], lines["tpe"]
    assert middle(half, "value") <= 1.02 * middle(whole, "value")
    assert middle(half, "epochs") <= 0.5 * middle(whole, "epochs")


@pytest.mark.parametrize("problem", ["surface", "table", "heldout"])
def test_the_summary_follows_from_the_lines(bench: ModuleType, problem: str) -> None:
    lines = committed(problem)
    assert lines.keys() == bench.METHODS.keys() or problem == "heldout"
    text = bench.summary([line for each in lines.values() for line in each])
    assert (HERE / f"results_{problem}.md").read_text(encoding="utf-8") == text


def test_the_table_holds_every_configuration_with_three_seeds(bench: ModuleType) -> None:
    table = sys.modules["table"]
    curves = table.load_curves()
    assert len(curves) == 224
    assert {tuple(str(point.get(name, "")) for name in table.NAMES) for point in table.lattice()} == curves.keys()
    assert {len(each) for each in curves.values()} == {table.SEEDS}
