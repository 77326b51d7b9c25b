"""Lines over an axis: curves of a run, a setting against a score, with the spread over seeds."""

from collections.abc import Iterator, Sequence

from tunelab.charts.axes import Area, area_of, axes, reference
from tunelab.charts.scale import drawable
from tunelab.charts.series import Mark, Series, left_out, pieces
from tunelab.charts.shapes import framed, heading, legend, mark_of, notes, number, path, text
from tunelab.charts.style import colour, dash
from tunelab.charts.ticks import Kind

FEW = 40  # points of a line that each get a marker
DENSE = 300  # beyond it a line is drawn thinner
SOME = 7  # markers of a longer line
TOLD = 150  # places of a longer line that the pointer can ask


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_scale: Kind = "linear",
    y_scale: Kind = "linear",
    marks: Sequence[Mark] = (),
) -> str:
    """One SVG with a line per series; bands, single points and lines of reference where they are given.

    What is not finite leaves a gap, what a log scale has no place for is left out, and a note says so.
    """
    named, foot = heading(title, y_label)
    keys, foot = legend([one.name for one in series], foot)
    area = area_of(series, marks, x_scale, y_scale, foot + 10)
    frame, foot = axes(area, x_label)
    bands = [piece for place, one in enumerate(series) for piece in band(one, place, area)]
    lines = [piece for place, one in enumerate(series) for piece in curve(one, place, area)]
    lines = lines or [
        text((area.x.start + area.x.end) / 2, (area.y.start + area.y.end) / 2, "no values", "soft", "middle")
    ]
    told, foot = notes(left_out(series, x_scale, y_scale), foot)
    body = [*named, *keys, *frame, *bands, *lines, *reference(area, marks), *told]
    return framed(body, foot, title, f"{y_label} over {x_label}: {', '.join(one.name for one in series)}")


def band(series: Series, place: int, area: Area) -> Iterator[str]:
    """The spread around a line, a lighter area."""
    for piece in pieces(series, area.x.kind, area.y.kind) if series.low else ():
        kept = [at for at in piece if drawable(series.low[at], "linear") and drawable(series.high[at], area.y.kind)]
        upper = [(area.x.place(series.xs[at]), area.y.place(series.high[at])) for at in kept]
        lower = [(area.x.place(series.xs[at]), area.y.place(series.low[at])) for at in reversed(kept)]
        if len(kept) > 1:
            yield f'<path class="{colour(place)}" d="{path(upper + lower)}Z" fill="currentColor" fill-opacity=".16"/>'
        elif kept:
            (x, top), (_, bottom) = upper[0], lower[0]
            d = f"M{number(x)} {number(top)}V{number(bottom)}"
            yield f'<path class="{colour(place)}" d="{d}" stroke="currentColor" stroke-width="6" stroke-opacity=".3"/>'


def curve(series: Series, place: int, area: Area) -> Iterator[str]:
    """The line itself, its markers, and single points beside it."""
    inside: list[str] = []
    dashes = f' stroke-dasharray="{dash(place)}"' if dash(place) else ""
    drawn = list(pieces(series, area.x.kind, area.y.kind))
    all_at = [at for piece in drawn for at in piece]
    wide = 2 if len(all_at) <= DENSE else 1.2
    for piece in drawn:
        spots = [(area.x.place(series.xs[at]), area.y.place(series.ys[at])) for at in piece]
        ink = f'fill="none" stroke="currentColor" stroke-width="{wide}" stroke-linejoin="round" stroke-linecap="round"'
        alone = [*spots, *spots] if len(spots) == 1 else spots  # a line to itself is a dot
        inside.append(f'<path d="{path(thinned(alone) if len(spots) > 1 else alone)}" {ink}{dashes}/>')
    shown = {all_at[at] for at in spread(len(all_at), len(all_at) if len(all_at) <= FEW else SOME, place)}
    for at in sorted(shown | {all_at[at] for at in spread(len(all_at), TOLD)}):
        x, y = area.x.place(series.xs[at]), area.y.place(series.ys[at])
        inside.append(mark_of(x, y, place, series.said(at)) if at in shown else hidden(x, y, series.said(at)))
    for x, y in series.points:
        if drawable(x, area.x.kind) and drawable(y, area.y.kind):
            where = f'cx="{number(area.x.place(x))}" cy="{number(area.y.place(y))}" r="2.2"'
            inside.append(f'<circle {where} fill="none" stroke="currentColor" stroke-opacity=".7"/>')
    if inside:
        yield f'<g class="{colour(place)}">{"".join(inside)}</g>'


def hidden(x: float, y: float, said: str) -> str:
    """A place that only the pointer finds."""
    words = mark_of(x, y, 0, said, radius=5)
    return words.replace('fill="currentColor"', 'fill-opacity="0"')


def spread(count: int, most: int, shift: int = 0) -> list[int]:
    """Evenly spaced places, the last among them; moved along for each series so that markers do not pile up."""
    if count <= most:
        return list(range(count))
    return sorted({round((at + (shift % 4) / 4) * (count - 1) / (most - 1)) for at in range(most - 1)} | {count - 1})


def thinned(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A long line with no more points than the eye can see: first, lowest, highest and last of each unit along x."""
    columns: dict[int, list[int]] = {}
    for place, (x, _) in enumerate(spots):
        columns.setdefault(int(x), []).append(place)
    kept: set[int] = set()
    for places in columns.values():
        kept |= {places[0], places[-1]}
        kept |= {min(places, key=lambda place: spots[place][1]), max(places, key=lambda place: spots[place][1])}
    return [spots[place] for place in sorted(kept)]
