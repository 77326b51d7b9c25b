"""Each notebook runs from top to bottom, and is kept without outputs."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient and ipykernel are the extra `notebooks`")
    import nbformat

    monkeypatch.setenv("NOTEBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)

    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()

    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/svg+xml" in str(output)
    ]
    assert len(pictures) >= 1
    said = " ".join(str(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", []))
    assert all(word in said for word in SAID[path.stem])
    if wanted := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(notebook, Path(wanted) / path.name)
