"""Points over two axes: a trial each, a model each."""

from collections.abc import Sequence

from tunelab.charts.axes import area_of, axes, reference
from tunelab.charts.line import curve
from tunelab.charts.series import Mark, Series, left_out, pieces
from tunelab.charts.shapes import framed, heading, legend, mark_of, notes, text
from tunelab.charts.style import colour
from tunelab.charts.ticks import Kind


def scatter(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_scale: Kind = "linear",
    y_scale: Kind = "linear",
    marks: Sequence[Mark] = (),
    lines: Sequence[Series] = (),
) -> str:
    """One SVG with a marker per point; `Series.names` says what the pointer tells over each.

    Lines through the cloud, such as where points would lie that are right, are drawn below it.
    """
    named, foot = heading(title, y_label)
    keys, foot = legend([one.name for one in [*series, *lines]], foot, "dot", len(lines))
    area = area_of([*series, *lines], marks, x_scale, y_scale, foot + 10)
    frame, foot = axes(area, x_label)
    under = [piece for place, one in enumerate(lines, len(series)) for piece in curve(one, place, area)]
    points = []
    for place, one in enumerate(series):
        inside = [
            mark_of(area.x.place(one.xs[at]), area.y.place(one.ys[at]), place, one.said(at), radius=4)
            for piece in pieces(one, x_scale, y_scale)
            for at in piece
        ]
        points += [f'<g class="{colour(place)}" fill-opacity=".75">{"".join(inside)}</g>'] * bool(inside)
    points = points or [
        text((area.x.start + area.x.end) / 2, (area.y.start + area.y.end) / 2, "no values", "soft", "middle")
    ]
    told, foot = notes(left_out(series, x_scale, y_scale), foot)
    body = [*named, *keys, *frame, *under, *points, *reference(area, marks), *told]
    return framed(body, foot, title, f"{y_label} against {x_label}: {', '.join(one.name for one in series)}")
