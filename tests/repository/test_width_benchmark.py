"""The measurement in bench/width is what the documentation says it is."""

import importlib.util
import json
import re
from types import ModuleType

import pytest
import torch

from support.paths import ROOT

HERE = ROOT / "bench" / "width"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("width_recipe", HERE / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(drawing: str) -> list[str]:
    """The tooltips of a figure's points; its looks may change."""
    return re.findall(r"<title>(.*?)</title>", drawing)


def test_summary_and_figure_follow_from_the_table(recipe: ModuleType) -> None:
    table = recipe.read(HERE / "results.csv")

    assert len(table) == 2 * 4 * 7 * 2
    assert recipe.summary(table) == json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    for kind, drawing in recipe.figures(table).items():
        committed = (HERE / f"{kind}.svg").read_text(encoding="utf-8")
        assert told(committed) == told(drawing)
        assert len(told(committed)) > 4 * 7  # every point tells its values


def test_the_best_rate_stays_with_mup_and_falls_without(recipe: ModuleType) -> None:
    found = recipe.summary(recipe.read(HERE / "results.csv"))

    assert abs(found["mup"]["drift"]) < 0.5
    assert found["standard"]["drift"] < -2
    best = found["standard"]["best_exponent"].values()
    assert min(best) > min(recipe.EXPONENTS) and max(best) < max(recipe.EXPONENTS)  # no best rate at the edge


def test_the_documentation_cites_the_results(recipe: ModuleType) -> None:
    found = recipe.summary(recipe.read(HERE / "results.csv"))
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "model_architecture.md").read_text(encoding="utf-8"))
    falls = {kind: -found[kind]["drift"] for kind in found}

    assert f"by a factor of {2 ** falls['standard']:.1f} ({falls['standard']:.2f} powers of two) without" in page
    assert f"by {2 ** falls['mup']:.2f} ({falls['mup']:.2f}) with it" in page
    taken, best = found["standard"]["loss_at_the_rate_of_the_narrowest"], found["standard"]["best_loss"]["256"]
    assert f"ends at a loss of {taken:.2f} without, where {best:.2f} was to be had" in page
    assert f"and at {found['mup']['loss_at_the_rate_of_the_narrowest']:.2f} with" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["standard", "mup"])
def test_a_model_of_the_table_can_be_trained_again(kind: str, recipe: ModuleType) -> None:
    stream, held = recipe.tokens_of(1, 1500), recipe.crops(recipe.tokens_of(2, 200), 64, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = recipe.train((kind, 64, -5, 0), stream, held)
    finally:
        torch.set_num_threads(threads)

    assert again == pytest.approx(
        recipe.read(HERE / "results.csv")[kind, 64, -5, 0], abs=0.02
    )  # other processors round
