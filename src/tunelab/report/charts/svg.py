"""SVG elements of every chart: text, colours that colour-blind readers tell apart, lines, markers, legend, frame.

The hues follow Okabe and Ito, "Color Universal Design" (2008), darkened for white paper and lightened for dark so
that each has a contrast of 3 to 1 or more.  No CSS variables here: viewers of single SVG files know none.
"""

import itertools
import re
import unicodedata
from collections.abc import Container, Iterable, Sequence
from html import escape

from tunelab.runs.terminal import line_breaks

FONT_SIZE = (
    16.0  # room is planned for this, the size of letters where a phone shrinks the drawing; else they are smaller
)
LETTER_WIDTH = 0.58  # mean width of a letter as a share of its size, for the usual faces without serifs
INVALID_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # XML holds none of these


def replace_invalid(text: str) -> str:
    """Text without the characters that XML forbids."""
    return INVALID_XML.sub("\ufffd", text)


def escape_markup(text: str) -> str:
    """Text as it may stand in SVG and HTML, in elements and in quoted attributes."""
    return escape(replace_invalid(text), quote=True)


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """The estimated width of text, in units of the drawing; the reader's fonts are unknown."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (wide + LETTER_WIDTH * (len(text) - wide))


def truncate_text(text: str, room: float, size: float = FONT_SIZE) -> str:
    """Text that fits, its end replaced by an ellipsis if need be."""
    if text_width(text, size) <= room:
        return text
    kept = text
    while kept and text_width(kept + "…", size) > room:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrap_text(text: str, room: float, size: float = FONT_SIZE) -> list[str]:
    """Lines that fit, broken between words or ideographs; a word wider than a line is cut."""
    line = " ".join(text.split())
    marks = [0, *line_breaks(line, int(room / (LETTER_WIDTH * size))), len(line)]
    parts = [line[begin:end].rstrip() for begin, end in itertools.pairwise(marks)]
    return [truncate_text(part, room, size) for part in parts if part]


LIGHT_COLOURS = ("#0067a5", "#c84e00", "#007a5a", "#a8417f", "#8a6200", "#55606e", "#6a4fb3", "#a3272f")
DARK_COLOURS = ("#4aa8e0", "#ff8a4c", "#2fc296", "#e58fc2", "#e8b02e", "#b5bcc6", "#b09cf2", "#ff7d84")
DASH_PATTERNS = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "2 2 6 2", "1 4")
MARKER_SHAPES = ("circle", "square", "diamond", "up", "down", "ring", "cross", "plus")
CHART_WIDTH = 560  # of every drawing, in its own units

FILL_COLOURS = {  # class: fill on white, fill on dark
    "paper": ("#ffffff", "#12161b"),
    "ink": ("#1c2430", "#e3e8ee"),
    "soft": ("#5d6876", "#98a3b0"),
    "on": ("#ffffff", "#10141a"),
}
STROKE_COLOURS = {  # class: stroke on white, stroke on dark
    "grid": ("#e3e7ec", "#2a323c"),
    "axis": ("#8a94a1", "#6d7886"),
    "mark": ("#5d6876", "#98a3b0"),
    "whisker": ("#1c2430", "#e3e8ee"),
    "halo": ("#ffffff", "#12161b"),
}


def colour_class(number: int) -> str:
    """The class of the series with this number; after eight they repeat, with other dashes."""
    return f"c{number % len(LIGHT_COLOURS)}"


def dash_pattern(number: int) -> str:
    """The dash pattern of a series; empty for an unbroken line."""
    return DASH_PATTERNS[(number + number // len(LIGHT_COLOURS)) % len(DASH_PATTERNS)]


def marker_shape(number: int) -> str:
    """The shape of a series' points."""
    return MARKER_SHAPES[(number + number // len(LIGHT_COLOURS)) % len(MARKER_SHAPES)]


def colour_rules(place: int) -> str:
    """Colours as CSS rules: 0 on white, 1 on dark."""
    inks = "".join(f".tl .{name}{{fill:{pair[place]}}}" for name, pair in FILL_COLOURS.items())
    lines = "".join(f".tl .{name}{{stroke:{pair[place]}}}" for name, pair in STROKE_COLOURS.items())
    hues = "".join(f".tl .c{number}{{color:{hue}}}" for number, hue in enumerate((LIGHT_COLOURS, DARK_COLOURS)[place]))
    return inks + lines + hues


CHART_CSS = (
    ".tl{max-width:100%;height:auto;display:block}"
    '.tl text{font:12px system-ui,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}'
    ".tl .title{font-size:14px;font-weight:600}.tl .small{font-size:11px}"
    ".tl .halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    "@media(max-width:560px){.tl text{font-size:16px}.tl .title{font-size:17px}.tl .small{font-size:14px}}"
    + colour_rules(0)
    + "@media screen and (prefers-color-scheme:dark){"
    + colour_rules(1)
    + "}"
)


MARGIN = 12.0  # left free at every side
LINE_HEIGHT = 20.0  # from one line of text to the next
TITLE_SIZE = 17.0  # size of the title on a phone
PIXEL_WIDTH = 680  # width of a drawing that has all the room it wants, in pixels
MARKER_PATHS = {  # around 0, 0 for a radius of 1
    "square": "M-.9-.9H.9V.9H-.9Z",
    "diamond": "M0-1.25L1.25 0L0 1.25L-1.25 0Z",
    "up": "M0-1.2L1.15.9H-1.15Z",
    "down": "M0 1.2L1.15-.9H-1.15Z",
    "cross": "M-1-1L1 1M-1 1L1-1",
    "plus": "M0-1.3V1.3M-1.3 0H1.3",
}


def coordinate(value: float) -> str:
    """A coordinate as text, to a tenth of a unit."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")  # + 0.0 turns -0.0 into 0.0


def text_element(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start") -> str:
    """One line of text, its baseline at (x, y)."""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{coordinate(x)}" y="{coordinate(y)}" class="{kind}"{place}>{escape_markup(words)}</text>'


def line_element(x1: float, y1: float, x2: float, y2: float, kind: str, dashes: str = "") -> str:
    """A straight line."""
    broken = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{coordinate(x1)}" y1="{coordinate(y1)}" x2="{coordinate(x2)}" y2="{coordinate(y2)}"'
    return f'<line {ends} class="{kind}"{broken}/>'


def path_data(points: Sequence[tuple[float, float]]) -> str:
    """The `d` attribute of a path through points."""
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)


def marker_element(x: float, y: float, place: int, tooltip: str = "", radius: float = 3.2) -> str:
    """The marker of a series, with its tooltip."""
    shape, where = marker_shape(place), f"translate({coordinate(x)} {coordinate(y)})"
    title = f"<title>{escape_markup(tooltip)}</title>" if tooltip else ""
    if shape in ("circle", "ring"):
        inside = (
            'fill="currentColor"' if shape == "circle" else 'class="paper" stroke="currentColor" stroke-width="1.6"'
        )
        return f'<circle transform="{where}" r="{radius}" {inside}>{title}</circle>'
    open_shape = shape in ("cross", "plus")
    ink = 'fill="none" stroke="currentColor" stroke-width=".6"' if open_shape else 'fill="currentColor"'
    return f'<path transform="{where} scale({radius})" d="{MARKER_PATHS[shape]}" {ink}>{title}</path>'


def line_key(x: float, y: float, place: int, *, marked: bool = True) -> str:
    """The legend entry of a line."""
    dashes = f' stroke-dasharray="{dash_pattern(place)}"' if dash_pattern(place) else ""
    stroke = (
        f'<path d="M{coordinate(x)} {coordinate(y)}h28" stroke="currentColor" stroke-width="2" fill="none"{dashes}/>'
    )
    marker = marker_element(x + 14, y, place) if marked else ""
    return f'<g class="{colour_class(place)}">{stroke}{marker}</g>'


def bar_key(x: float, y: float, place: int) -> str:
    """The legend entry of a bar."""
    box = f'x="{coordinate(x)}" y="{coordinate(y - 6)}" width="28" height="12"'
    return f'<rect class="{colour_class(place)}" {box} fill="currentColor"/>'


def marker_key(x: float, y: float, place: int) -> str:
    """The legend entry of a marker."""
    return f'<g class="{colour_class(place)}">{marker_element(x + 20, y, place, radius=4)}</g>'


def chart_heading(title: str, y_label: str = "") -> tuple[list[str], float]:
    """The title, wrapped where it is long, and the name of the y axis under it; the y position below them."""
    lines = wrap_text(title, CHART_WIDTH - 2 * MARGIN, TITLE_SIZE)
    drawn = [
        text_element(MARGIN, MARGIN + 14 + place * LINE_HEIGHT, words, "ink title") for place, words in enumerate(lines)
    ]
    foot = MARGIN + LINE_HEIGHT * len(lines)
    named = wrap_text(y_label, CHART_WIDTH - 2 * MARGIN)
    drawn += [text_element(MARGIN, foot + 16 + place * LINE_HEIGHT, words, "soft") for place, words in enumerate(named)]
    return drawn, foot + LINE_HEIGHT * len(named) + (4 if named else 0)


def chart_legend(
    names: Sequence[str], top: float, kind: str = "line", lines: int = 0, unmarked: Container[int] = ()
) -> tuple[list[str], float]:
    """The legend, in as many rows as it takes; nothing for a single series.

    Args:
        names: Of the series.
        top: Where it begins.
        kind: What stands for a series: a line, a bar or a dot.
        lines: How many of the last ones are lines, whatever the kind.
        unmarked: Places of lines without markers.
    """
    if len(names) < 2:
        return [], top
    kinds = [kind] * (len(names) - lines) + ["line"] * lines
    drawn, x, y = [], MARGIN, top + 14
    for place, name in enumerate(names):
        taken = 36 + text_width(name) + 16
        if x > MARGIN and x + taken > CHART_WIDTH - MARGIN:
            x, y = MARGIN, y + LINE_HEIGHT
        name_lines = wrap_text(name, CHART_WIDTH - MARGIN - x - 36) or [""]
        if kinds[place] == "line":
            drawn.append(line_key(x, y - 4, place, marked=place not in unmarked))
        else:
            drawn.append((bar_key if kinds[place] == "bar" else marker_key)(x, y - 4, place))
        drawn += [text_element(x + 34, y, name_lines[0])]
        for more in name_lines[1:]:
            y += LINE_HEIGHT
            drawn.append(text_element(x + 34, y, more))
        x += taken
    return drawn, y + 8


def chart_notes(lines: Iterable[str], top: float) -> tuple[list[str], float]:
    """Notes below the drawing; the y position below them."""
    drawn: list[str] = []
    for words in lines:
        for part in wrap_text(words, CHART_WIDTH - 2 * MARGIN, 14):
            top += LINE_HEIGHT - 2
            drawn.append(text_element(MARGIN, top, part, "soft small"))
    return drawn, top


def svg_document(body: Iterable[str], height: float, title: str, description: str) -> str:
    """The whole drawing: its style, title, description and background."""
    high = round(height + MARGIN)
    tall = round(PIXEL_WIDTH * high / CHART_WIDTH)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tl" role="img" aria-label="{escape_markup(title)}"'
            f' viewBox="0 0 {CHART_WIDTH} {high}" width="{PIXEL_WIDTH}" height="{tall}">',
            f"<title>{escape_markup(title)}</title><desc>{escape_markup(description)}</desc><style>{CHART_CSS}</style>",
            f'<rect class="paper" width="{CHART_WIDTH}" height="{high}" rx="6"/>',
            *body,
            "</svg>",
        ]
    )
