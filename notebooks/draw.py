"""Run the notebooks and keep their drawings, as the pages under docs/ show them.

python notebooks/draw.py [NUMBER...]     all three, or those whose names begin so; some minutes each
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
KIND = "image/svg+xml"
LIMIT = 900  # seconds that one cell may take


def executed(path: Path, outputs: Path) -> Any:
    """A notebook, run from top to bottom with this source tree; its runs go to `outputs`."""
    import nbclient  # of the extra `notebooks`, as is ipykernel
    import nbformat

    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    place = {"NOTEBOOK_OUTPUTS": str(outputs), "PYTHONPATH": paths, "IPYTHONDIR": str(outputs / "ipython")}
    notebook = nbformat.read(path, as_version=4)
    before = {name: os.environ.get(name) for name in place}
    os.environ.update(place)
    try:
        resources = {"metadata": {"path": str(ROOT / "notebooks")}}
        nbclient.NotebookClient(notebook, timeout=LIMIT, kernel_name="python3", resources=resources).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return notebook


def drawings(notebook: Any, stem: str) -> dict[str, str]:
    """The SVG texts that a notebook put out, by file name: its number and the title of the drawing."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = ["".join(output["data"][KIND]) for output in outputs if KIND in output.get("data", {})]
    return {f"notebook_{stem[:2]}_{slug(title_of(svg))}.svg": svg for svg in found}


def title_of(svg: str) -> str:
    """What stands in the <title> of a drawing."""
    match = re.search(r"<title[^>]*>([^<]*)</title>", svg)
    assert match is not None, "a drawing without a title tells nothing to those who do not see it"
    return match[1]


def slug(words: str) -> str:
    """Words as a part of a file name."""
    return "_".join(re.findall(r"[a-z0-9]+", words.lower()))


def main(numbers: list[str]) -> None:
    """Run notebooks and write what they draw to docs/figures."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if numbers and not path.name.startswith(tuple(numbers)):
            continue
        with tempfile.TemporaryDirectory() as outputs:
            for name, svg in drawings(executed(path, Path(outputs)), path.stem).items():
                (FIGURES / name).write_text(svg.rstrip() + "\n", encoding="utf-8")
                print(FIGURES / name)


if __name__ == "__main__":
    main(sys.argv[1:])
