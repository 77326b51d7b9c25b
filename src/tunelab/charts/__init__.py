"""Static drawings as SVG text and pages of them as HTML: values in, text out, nothing but the standard library.

`line_chart`, `scatter`, `bar_chart` and `heat_map` each give one `<svg>` that stands alone in a file and fits into a
page; `page` puts drawings, paragraphs and tables into one HTML file that loads nothing from anywhere.
"""

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.heat import heat_map
from tunelab.charts.line import line_chart
from tunelab.charts.numbers import human
from tunelab.charts.page import Figure, Heading, Paragraph, Section, Table, page
from tunelab.charts.parallel import Upright, parallel
from tunelab.charts.scatter import scatter
from tunelab.charts.series import Mark, Series

__all__ = [
    "Bars",
    "Figure",
    "Heading",
    "Mark",
    "Paragraph",
    "Section",
    "Series",
    "Table",
    "Upright",
    "bar_chart",
    "heat_map",
    "human",
    "line_chart",
    "page",
    "parallel",
    "scatter",
]
