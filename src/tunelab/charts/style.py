"""The look of every drawing: colours that colour-blind readers tell apart, on white and on dark.

The hues follow Okabe and Ito, "Color Universal Design" (2008), darkened for white paper and lightened for dark so that
each has a contrast of 3 to 1 or more.  No CSS variables here: viewers of single SVG files know none.
"""

LIGHT = ("#0067a5", "#c84e00", "#007a5a", "#a8417f", "#8a6200", "#55606e", "#6a4fb3", "#a3272f")
DARK = ("#4aa8e0", "#ff8a4c", "#2fc296", "#e58fc2", "#e8b02e", "#b5bcc6", "#b09cf2", "#ff7d84")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "2 2 6 2", "1 4")
MARKERS = ("circle", "square", "diamond", "up", "down", "ring", "cross", "plus")
WIDTH = 560  # of every drawing, in its own units

INKS = {  # class: fill on white, fill on dark
    "paper": ("#ffffff", "#12161b"),
    "ink": ("#1c2430", "#e3e8ee"),
    "soft": ("#5d6876", "#98a3b0"),
    "on": ("#ffffff", "#10141a"),
}
LINES = {  # class: stroke on white, stroke on dark
    "grid": ("#e3e7ec", "#2a323c"),
    "axis": ("#8a94a1", "#6d7886"),
    "mark": ("#5d6876", "#98a3b0"),
    "whisker": ("#1c2430", "#e3e8ee"),
    "halo": ("#ffffff", "#12161b"),
}


def colour(number: int) -> str:
    """The class of the series with this number; after eight they repeat, with other dashes."""
    return f"c{number % len(LIGHT)}"


def dash(number: int) -> str:
    """The dash pattern of a series; empty for an unbroken line."""
    return DASHES[(number + number // len(LIGHT)) % len(DASHES)]


def marker(number: int) -> str:
    """The shape of a series' points."""
    return MARKERS[(number + number // len(LIGHT)) % len(MARKERS)]


def rules(place: int) -> str:
    """Colours as CSS rules: 0 on white, 1 on dark."""
    inks = "".join(f".tl .{name}{{fill:{pair[place]}}}" for name, pair in INKS.items())
    lines = "".join(f".tl .{name}{{stroke:{pair[place]}}}" for name, pair in LINES.items())
    hues = "".join(f".tl .c{number}{{color:{hue}}}" for number, hue in enumerate((LIGHT, DARK)[place]))
    return inks + lines + hues


STYLE = (
    ".tl{max-width:100%;height:auto;display:block}"
    '.tl text{font:12px system-ui,"Segoe UI","Noto Sans","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}'
    ".tl .title{font-size:14px;font-weight:600}.tl .small{font-size:11px}"
    ".tl .halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    "@media(max-width:560px){.tl text{font-size:16px}.tl .title{font-size:17px}.tl .small{font-size:14px}}"
    + rules(0)
    + "@media screen and (prefers-color-scheme:dark){"
    + rules(1)
    + "}"
)
