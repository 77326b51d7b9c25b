"""Static charts as SVG text, and pages of them as HTML: values in, text out, no dependencies.

`line_chart`, `scatter`, `bar_chart` and `heat_map` each give one `<svg>` that stands alone in a file and fits into
a page; `render_page` puts charts, paragraphs and tables into one HTML file that loads nothing from anywhere.
"""

from tunelab.analysis.number_format import format_number
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.chart_page import Figure, Heading, Paragraph, Section, Table, render_page
from tunelab.report.charts.lines import line_chart, scatter
from tunelab.report.charts.matrices import Axis, heat_map, parallel_coordinates

__all__ = [
    "Axis",
    "Bars",
    "Figure",
    "Heading",
    "Paragraph",
    "ReferenceLine",
    "Section",
    "Series",
    "Table",
    "bar_chart",
    "format_number",
    "heat_map",
    "line_chart",
    "parallel_coordinates",
    "render_page",
    "scatter",
]
