"""Line charts with bands, and scatter plots."""

from collections.abc import Iterator, Sequence

from tunelab.language.translation import translate
from tunelab.report.charts.axes import (
    PlotArea,
    ReferenceLine,
    ScaleKind,
    Series,
    draw_axes,
    draw_reference_lines,
    fit_plot_area,
    is_drawable,
    omission_notes,
    unbroken_pieces,
)
from tunelab.report.charts.svg import (
    LINE_HEIGHT,
    chart_heading,
    chart_legend,
    chart_notes,
    colour_class,
    coordinate,
    dash_pattern,
    escape_markup,
    marker_element,
    path_data,
    svg_document,
    text_element,
    text_width,
)

ALL_MARKERS_UP_TO = 40  # points of a line that each get a marker
THIN_LINE_FROM = 300  # beyond it a line is drawn thinner
SPARSE_MARKERS = 7  # markers of a longer line
MAX_TOOLTIPS = 150  # points of a longer line that have a tooltip


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_scale: ScaleKind = "linear",
    y_scale: ScaleKind = "linear",
    marks: Sequence[ReferenceLine] = (),
    x_range: Sequence[float] = (),
) -> str:
    """One SVG with a line per series, with optional bands, single points and reference lines.

    The x axis holds `x_range`, drawn over or not.  What is not finite leaves a gap, what a log scale has no place for
    is left out, and a note says so.
    """
    named, foot = chart_heading(title, y_label)
    keys, foot = chart_legend([one.name for one in series], foot, unmarked=unmarked_places(series))
    foot += LINE_HEIGHT if any(mark.axis == "x" for mark in marks) else 0  # their words stand above the lines
    area = fit_plot_area(series, marks, x_scale, y_scale, foot + 10, x_range)
    frame, foot = draw_axes(area, x_label)
    bands = [piece for place, one in enumerate(series) for piece in band_paths(one, place, area)]
    lines = [piece for place, one in enumerate(series) for piece in curve_elements(one, place, area)]
    lines = lines or [
        text_element(
            (area.x.start + area.x.end) / 2, (area.y.start + area.y.end) / 2, translate("no values"), "soft", "middle"
        )
    ]
    notes, foot = chart_notes(omission_notes(series, x_scale, y_scale), foot)
    body = [*named, *keys, *frame, *bands, *lines, *draw_reference_lines(area, marks), *notes]
    names = ", ".join(one.name for one in series)
    return svg_document(
        body,
        foot,
        title,
        translate("{value} over {x_label}: {names}", value=y_label or title, x_label=x_label, names=names),
    )


def band_paths(series: Series, place: int, area: PlotArea) -> Iterator[str]:
    """The band around a line, as a lighter area."""
    for piece in unbroken_pieces(series, area.x.kind, area.y.kind) if series.low else ():
        kept = [
            at for at in piece if is_drawable(series.low[at], "linear") and is_drawable(series.high[at], area.y.kind)
        ]
        upper = [(area.x.position(series.xs[at]), area.y.position(series.high[at])) for at in kept]
        lower = [(area.x.position(series.xs[at]), area.y.position(series.low[at])) for at in reversed(kept)]
        if len(kept) > 1:
            yield (
                f'<path class="{colour_class(place)}" d="{path_data(upper + lower)}Z" fill="currentColor"'
                ' fill-opacity=".16"/>'
            )
        elif kept:
            (x, top), (_, bottom) = upper[0], lower[0]
            d = f"M{coordinate(x)} {coordinate(top)}V{coordinate(bottom)}"
            yield (
                f'<path class="{colour_class(place)}" d="{d}" stroke="currentColor" stroke-width="6"'
                ' stroke-opacity=".3"/>'
            )


def curve_elements(series: Series, place: int, area: PlotArea) -> Iterator[str]:
    """A line, its markers, and single points beside it."""
    inside: list[str] = []
    dashes = f' stroke-dasharray="{dash_pattern(place)}"' if dash_pattern(place) else ""
    drawn = list(unbroken_pieces(series, area.x.kind, area.y.kind))
    all_at = [at for piece in drawn for at in piece]
    wide = 2 if len(all_at) <= THIN_LINE_FROM else 1.2
    for piece in drawn:
        spots = [(area.x.position(series.xs[at]), area.y.position(series.ys[at])) for at in piece]
        ink = f'fill="none" stroke="currentColor" stroke-width="{wide}" stroke-linejoin="round" stroke-linecap="round"'
        alone = [*spots, *spots] if len(spots) == 1 else spots  # a line to itself is a dot
        inside.append(f'<path d="{path_data(thin_points(alone) if len(spots) > 1 else alone)}" {ink}{dashes}/>')
    marked = (
        set()
        if not series.marked
        else {
            all_at[at]
            for at in even_indices(
                len(all_at), len(all_at) if len(all_at) <= ALL_MARKERS_UP_TO else SPARSE_MARKERS, place
            )
        }
    )
    for at in sorted(marked | {all_at[at] for at in even_indices(len(all_at), MAX_TOOLTIPS)}):
        x, y = area.x.position(series.xs[at]), area.y.position(series.ys[at])
        inside.append(
            marker_element(x, y, place, series.tooltip(at)) if at in marked else hidden_marker(x, y, series.tooltip(at))
        )
    inside += single_points(series, area)
    if inside:
        yield f'<g class="{colour_class(place)}">{"".join(inside)}</g>'


def single_points(series: Series, area: PlotArea) -> Iterator[str]:
    """Single values beside a line, the best of them ringed, and crosses at an end for those that are missing."""
    for at, (x, y) in enumerate(series.points):
        if is_drawable(x, area.x.kind) and is_drawable(y, area.y.kind):
            left, top = area.x.position(x), area.y.position(y)
            where = f'cx="{coordinate(left)}" cy="{coordinate(top)}"'
            title = f"<title>{escape_markup(series.point_names[at])}</title>" if series.point_names else ""
            ink = 'fill="currentColor" fill-opacity=".25" stroke="currentColor" stroke-opacity=".7"'
            yield f'<circle {where} r="2.6" {ink}>{title}</circle>'
            if at == series.best:
                yield f'<circle {where} r="6" fill="none" stroke="currentColor" stroke-width="1.6"/>'
                half = text_width(translate("best")) / 2
                middle = min(max(left, area.x.start - 8 + half), area.x.end + 8 - half)
                above = top - 11 > area.y.end + 2  # beside the ring it would stand on the line
                yield text_element(middle, top - 11 if above else top + 21, translate("best"), "soft halo", "middle")
    end = area.y.end if series.missing_on_top else area.y.start
    for x in series.missing:
        if is_drawable(x, area.x.kind):
            d = f"M{coordinate(area.x.position(x))} {coordinate(end)}m-3.5 -3.5l7 7m0 -7l-7 7"
            yield f'<path d="{d}" stroke="currentColor" stroke-width="1.3"/>'


def unmarked_places(series: Sequence[Series]) -> frozenset[int]:
    """Places of the series that are lines without markers."""
    return frozenset(place for place, one in enumerate(series) if not one.marked)


def hidden_marker(x: float, y: float, tooltip: str) -> str:
    """An invisible marker that carries a tooltip."""
    words = marker_element(x, y, 0, tooltip, radius=5)
    return words.replace('fill="currentColor"', 'fill-opacity="0"')


def even_indices(count: int, most: int, shift: int = 0) -> list[int]:
    """Evenly spaced indices, the last among them; shifted for each series so that markers do not overlap."""
    if count <= most:
        return list(range(count))
    return sorted({round((at + (shift % 4) / 4) * (count - 1) / (most - 1)) for at in range(most - 1)} | {count - 1})


def thin_points(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A long line reduced to the first, lowest, highest and last point of each unit along x."""
    columns: dict[int, list[int]] = {}
    for place, (x, _) in enumerate(spots):
        columns.setdefault(int(x), []).append(place)
    kept: set[int] = set()
    for places in columns.values():
        kept |= {places[0], places[-1]}
        kept |= {min(places, key=lambda place: spots[place][1]), max(places, key=lambda place: spots[place][1])}
    return [spots[place] for place in sorted(kept)]


def scatter(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_scale: ScaleKind = "linear",
    y_scale: ScaleKind = "linear",
    marks: Sequence[ReferenceLine] = (),
    lines: Sequence[Series] = (),
) -> str:
    """One SVG with a marker per point; `Series.tooltip_names` begin the tooltips.

    Lines through the cloud, such as where points would lie that are right, are drawn below it.
    """
    named, foot = chart_heading(title, y_label)
    every = [*series, *lines]
    keys, foot = chart_legend([one.name for one in every], foot, "dot", len(lines), unmarked_places(every))
    area = fit_plot_area([*series, *lines], marks, x_scale, y_scale, foot + 10)
    frame, foot = draw_axes(area, x_label)
    under = [piece for place, one in enumerate(lines, len(series)) for piece in curve_elements(one, place, area)]
    points = []
    for place, one in enumerate(series):
        inside = [
            marker_element(area.x.position(one.xs[at]), area.y.position(one.ys[at]), place, one.tooltip(at), radius=4)
            for piece in unbroken_pieces(one, x_scale, y_scale)
            for at in piece
        ]
        points += [f'<g class="{colour_class(place)}" fill-opacity=".75">{"".join(inside)}</g>'] * bool(inside)
    points = points or [
        text_element(
            (area.x.start + area.x.end) / 2, (area.y.start + area.y.end) / 2, translate("no values"), "soft", "middle"
        )
    ]
    notes, foot = chart_notes(omission_notes(series, x_scale, y_scale), foot)
    body = [*named, *keys, *frame, *under, *points, *draw_reference_lines(area, marks), *notes]
    return svg_document(
        body,
        foot,
        title,
        translate(
            "{y_label} against {x_label}: {names}",
            y_label=y_label,
            x_label=x_label,
            names=", ".join(one.name for one in series),
        ),
    )
