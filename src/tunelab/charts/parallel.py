"""Parallel coordinates: an upright axis for each setting, a line for each trial, fuller the better it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.charts.numbers import human
from tunelab.charts.shapes import EDGE, LINE, framed, heading, line, notes, number, text
from tunelab.charts.style import WIDTH
from tunelab.charts.words import cut, safe

TALL = 250.0
FAINT, FULL = 0.12, 0.9
MOST = 300  # lines; more than these cover each other


@dataclass(frozen=True)
class Upright:
    """One axis.

    Attributes:
        name: What it is.
        places: Where each line crosses it, in [0, 1] from its foot; nan leaves a line without this axis.
        ticks: Places with their words.
    """

    name: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def parallel(
    axes: Sequence[Upright], worth: Sequence[float], keys: Sequence[str], said: Sequence[str], *, title: str
) -> str:
    """One SVG with a line per trial through all axes.

    Args:
        axes: From left to right.
        worth: How good each trial is, in [0, 1]; the best are drawn last, above the others.
        keys: What each line belongs to, as in a table's rows.
        said: What the pointer tells over each line.
        title: Above all.
    """
    if any(len(one.places) != len(worth) for one in axes) or not len(worth) == len(keys) == len(said):
        raise ValueError(f"parallel coordinates of {len(worth)} lines got axes, keys or words of another number")
    named, foot = heading(title)
    top, bottom = foot + 2 * LINE, foot + 2 * LINE + TALL
    left, right = EDGE + 34, WIDTH - EDGE - 40
    gap = (right - left) / max(1, len(axes) - 1)
    spots = [left + gap * at for at in range(len(axes))]
    drawn = []
    order = sorted(range(len(worth)), key=lambda at: worth[at])[-MOST:]
    for at in order:
        crossed = [
            (x, bottom - TALL * one.places[at])
            for x, one in zip(spots, axes, strict=True)
            if math.isfinite(one.places[at])
        ]
        if len(crossed) < 2:
            continue
        strength, best = FAINT + (FULL - FAINT) * worth[at] ** 3, at == order[-1]
        d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in crossed)
        hue, wide = ("c1", "3") if best else ("c0", "1.4")
        drawn.append(
            f'<path class="{hue}" data-key="{safe(keys[at])}" d="{d}" fill="none" stroke="currentColor"'
            f' stroke-width="{wide}" stroke-opacity="{1 if best else round(strength, 2)}">'
            f"<title>{safe(said[at])}</title></path>"
        )
    for at, (x, one) in enumerate(zip(spots, axes, strict=True)):
        drawn.append(line(x, top, x, bottom, "axis"))
        first, last = at == 0, at == len(axes) - 1
        anchor = "start" if first else "end" if last else "middle"
        head = EDGE if first else WIDTH - EDGE if last else x
        foot_of_name = top - 10 - (LINE if at % 2 else 0)  # names take turns, so that they do not touch
        drawn.append(text(head, foot_of_name, cut(one.name, gap * (1.2 if first or last else 1.9)), "ink halo", anchor))
        for place, words in one.ticks:
            y = bottom - TALL * place
            drawn.append(line(x - 3, y, x + 3, y, "axis"))
            drawn.append(text(x + 5, y + 4, cut(words, max(38.0, gap - 8)), "soft small halo"))
    told = ["A line for each trial, fuller the better it is; the best is drawn thick."]
    told += [f"Drawn are the best {MOST} of {len(worth):,}."] * (len(worth) > MOST)
    below, end = notes(told, bottom + 6)
    return framed([*named, *drawn, *below], end, title, f"axes: {', '.join(one.name for one in axes)}")


def number_ticks(low: float, high: float, *, log: bool) -> list[tuple[float, str]]:
    """Ends and middle of an axis of numbers."""
    if high <= low:
        return [(0.5, human(low))]
    middle = math.sqrt(low * high) if log else (low + high) / 2
    return [(0.0, human(low, 2)), (0.5, human(middle, 2)), (1.0, human(high, 2))]
