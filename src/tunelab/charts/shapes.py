"""The pieces a drawing is made of: text, lines, markers and the frame around them."""

from collections.abc import Iterable, Sequence

from tunelab.charts.style import STYLE, WIDTH, colour, dash, marker
from tunelab.charts.words import safe, width, wrapped

EDGE = 12.0  # left free at every side
LINE = 20.0  # from one line of text to the next
TITLE = 17.0  # size of the title on a phone
SHOWN = 680  # width of a drawing that has all the room it wants, in pixels
OUTLINES = {  # around 0, 0 for a radius of 1
    "square": "M-.9-.9H.9V.9H-.9Z",
    "diamond": "M0-1.25L1.25 0L0 1.25L-1.25 0Z",
    "up": "M0-1.2L1.15.9H-1.15Z",
    "down": "M0 1.2L1.15-.9H-1.15Z",
    "cross": "M-1-1L1 1M-1 1L1-1",
    "plus": "M0-1.3V1.3M-1.3 0H1.3",
}


def number(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # + 0.0 turns -0.0 into 0.0


def text(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start") -> str:
    """One line of text, (x, y) at the foot of its letters."""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{number(x)}" y="{number(y)}" class="{kind}"{place}>{safe(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, dashes: str = "") -> str:
    """A straight line."""
    broken = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} class="{kind}"{broken}/>'


def path(points: Sequence[tuple[float, float]]) -> str:
    """The `d` of a path through points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def mark_of(x: float, y: float, place: int, said: str = "", radius: float = 3.2) -> str:
    """The marker of series number `place`, with the words that appear under the pointer."""
    shape, where = marker(place), f"translate({number(x)} {number(y)})"
    title = f"<title>{safe(said)}</title>" if said else ""
    if shape in ("circle", "ring"):
        inside = (
            'fill="currentColor"' if shape == "circle" else 'class="paper" stroke="currentColor" stroke-width="1.6"'
        )
        return f'<circle transform="{where}" r="{radius}" {inside}>{title}</circle>'
    open_shape = shape in ("cross", "plus")
    ink = 'fill="none" stroke="currentColor" stroke-width=".6"' if open_shape else 'fill="currentColor"'
    return f'<path transform="{where} scale({radius})" d="{OUTLINES[shape]}" {ink}>{title}</path>'


def sample(x: float, y: float, place: int) -> str:
    """A short piece of a series' line, for the legend."""
    dashes = f' stroke-dasharray="{dash(place)}"' if dash(place) else ""
    stroke = f'<path d="M{number(x)} {number(y)}h28" stroke="currentColor" stroke-width="2" fill="none"{dashes}/>'
    return f'<g class="{colour(place)}">{stroke}{mark_of(x + 14, y, place)}</g>'


def swatch(x: float, y: float, place: int) -> str:
    """A small square in a series' colour, for the legend of bars."""
    box = f'x="{number(x)}" y="{number(y - 6)}" width="28" height="12"'
    return f'<rect class="{colour(place)}" {box} fill="currentColor"/>'


def dot(x: float, y: float, place: int) -> str:
    """A series' marker alone, for the legend of points."""
    return f'<g class="{colour(place)}">{mark_of(x + 20, y, place, radius=4)}</g>'


def heading(title: str, y_label: str = "") -> tuple[list[str], float]:
    """The title, broken where it is long, and the name of the upright axis under it; where the next line may stand."""
    lines = wrapped(title, WIDTH - 2 * EDGE, TITLE)
    drawn = [text(EDGE, EDGE + 14 + place * LINE, words, "ink title") for place, words in enumerate(lines)]
    foot = EDGE + LINE * len(lines)
    named = wrapped(y_label, WIDTH - 2 * EDGE)
    drawn += [text(EDGE, foot + 16 + place * LINE, words, "soft") for place, words in enumerate(named)]
    return drawn, foot + LINE * len(named) + (4 if named else 0)


def legend(names: Sequence[str], top: float, kind: str = "line", lines: int = 0) -> tuple[list[str], float]:
    """What stands for which series, in as many rows as it takes; nothing for a single one.

    Args:
        names: Of the series.
        top: Where it begins.
        kind: What stands for a series: a line, a bar or a dot.
        lines: How many of the last ones are lines, whatever the kind.
    """
    if len(names) < 2:
        return [], top
    kinds = [kind] * (len(names) - lines) + ["line"] * lines
    drawn, x, y = [], EDGE, top + 14
    for place, name in enumerate(names):
        taken = 36 + width(name) + 16
        if x > EDGE and x + taken > WIDTH - EDGE:
            x, y = EDGE, y + LINE
        shown = wrapped(name, WIDTH - EDGE - x - 36) or [""]
        draw = {"line": sample, "bar": swatch, "dot": dot}[kinds[place]]
        drawn += [draw(x, y - 4, place), text(x + 34, y, shown[0])]
        for more in shown[1:]:
            y += LINE
            drawn.append(text(x + 34, y, more))
        x += taken
    return drawn, y + 8


def notes(lines: Iterable[str], top: float) -> tuple[list[str], float]:
    """What the reader must know about the drawing, below it."""
    drawn: list[str] = []
    for words in lines:
        for part in wrapped(words, WIDTH - 2 * EDGE, 14):
            top += LINE - 2
            drawn.append(text(EDGE, top, part, "soft small"))
    return drawn, top


def framed(body: Iterable[str], height: float, title: str, description: str) -> str:
    """The whole drawing: its own style, its name and description for those who do not see it, and paper below."""
    high = round(height + EDGE)
    tall = round(SHOWN * high / WIDTH)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tl" role="img" aria-label="{safe(title)}"'
            f' viewBox="0 0 {WIDTH} {high}" width="{SHOWN}" height="{tall}">',
            f"<title>{safe(title)}</title><desc>{safe(description)}</desc><style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{high}" rx="6"/>',
            *body,
            "</svg>",
        ]
    )
