"""Static charts as SVG text: values in, text out, no dependencies.

`line_chart`, `scatter`, `bar_chart`, `heat_map` and `parallel_coordinates` each give one `<svg>` that stands alone in a
file and fits into a page.
"""

from tunelab.analysis.number_format import format_number
from tunelab.report.charts.axes import ReferenceLine, Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart, scatter
from tunelab.report.charts.matrices import Axis, heat_map, parallel_coordinates

__all__ = [
    "Axis",
    "Bars",
    "ReferenceLine",
    "Series",
    "bar_chart",
    "format_number",
    "heat_map",
    "line_chart",
    "parallel_coordinates",
    "scatter",
]
