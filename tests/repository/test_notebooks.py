"""Each notebook runs from top to bottom, and is kept without outputs."""

import ast
import importlib
import inspect
import json
import os
import runpy
from pathlib import Path

import pytest

from support.paths import ROOT

DRAW = runpy.run_path(str(ROOT / "notebooks" / "draw.py"))
FIGURES = sorted((ROOT / "docs" / "figures").glob("notebook_*.svg"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SAID = {  # what their words lead a reader to expect
    "01_first_run": ("after", "finished"),
    "02_what_a_search_teaches": ("val/loss is best at lr=",),
    "03_reading_gradients_depth_width": ("healthy", "vanishing", "exploding"),
}


def test_there_are_three() -> None:
    names = ["01_first_run", "02_what_a_search_teaches", "03_reading_gradients_depth_width"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert cells[0]["cell_type"] == "markdown"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_functions_of_the_project_with_arguments_that_they_take(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    functions = {
        name.asname or name.name: getattr(importlib.import_module(node.module), name.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tunelab")
        for name in node.names
    }
    calls = [
        call
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions
    ]

    assert calls
    for call in calls:
        keywords = dict.fromkeys(word.arg for word in call.keywords if word.arg)
        if all(word.arg for word in call.keywords) and not any(isinstance(word, ast.Starred) for word in call.args):
            inspect.signature(functions[ast.unparse(call.func)]).bind(*call.args, **keywords)


def test_every_drawing_of_a_notebook_stands_in_a_page_with_the_command_that_makes_it() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")]
    assert {figure.name.split("_")[1] for figure in FIGURES} == {path.stem[:2] for path in NOTEBOOKS}
    for figure in FIGURES:
        showing = [page for page in pages if f"figures/{figure.name})" in page]
        command = f"python notebooks/draw.py {figure.name.split('_')[1]}\n"
        assert any(command in page for page in showing), figure.name
        assert figure.read_text(encoding="utf-8").startswith("<svg ")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient and ipykernel are the extra `notebooks`")
    import nbformat

    notebook = DRAW["executed"](path, tmp_path)

    # Then its drawings are those that the pages show, and it says what its words promise
    drawn = DRAW["drawings"](notebook, path.stem)
    assert set(drawn) == {figure.name for figure in FIGURES if figure.name.startswith(f"notebook_{path.stem[:2]}_")}
    said = " ".join(str(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", []))
    assert all(word in said for word in SAID[path.stem])
    if wanted := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(notebook, Path(wanted) / path.name)
