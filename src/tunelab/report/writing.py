"""A document as files: report.html, report.md, a CSV file for each table, an SVG file for each drawing."""

import csv
import io
import math
from pathlib import Path

from tunelab.atomic import write_text
from tunelab.report.blocks import Document, Grid, Value
from tunelab.report.html import html
from tunelab.report.markdown import markdown

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would carry out


def write_report(document: Document, target: Path) -> dict[str, Path]:
    """Write every file; what is there by the same names is replaced, each file in one move.

    Returns:
        What each file is, and where.
    """
    (target / "figures").mkdir(parents=True, exist_ok=True)
    write_text(target / "report.html", html(document))
    write_text(target / "report.md", markdown(document))
    for grid in document.grids():
        write_text(target / f"{grid.name}.csv", table_text(grid))
    for chart in document.charts():
        write_text(target / "figures" / f"{chart.name}.svg", chart.svg)
    return {"report": target / "report.html", "as text": target / "report.md", "tables": target / "*.csv"}


def table_text(grid: Grid) -> str:
    """A table as CSV: numbers in full, gaps empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([cell(name) for name in grid.columns])
    writer.writerows([cell(value) for value in row] for row in grid.rows)
    return out.getvalue()


def cell(value: Value) -> str:
    """A value as text; text that a spreadsheet would take for a formula gets a quote before it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return repr(value)
