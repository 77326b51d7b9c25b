"""The data summary and a preview of records as one page: no script, nothing loaded, light and dark.  Pure: HTML out."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tunelab.data.preview import PreviewRecord, TokenPiece, escape_char
from tunelab.data.summary_text import describe_duplicates, describe_leaks, example_texts, min_median_max

DATA_PAGE_STYLE = Path(__file__).with_suffix(".css")
CONTENT_SECURITY_POLICY = (  # the page holds data, so nothing in it may act
    "default-src 'none'; style-src 'unsafe-inline'"
)


def render_data_page(title: str, report: Mapping[str, Any], shown: Sequence[PreviewRecord], split: str) -> str:
    """The whole page.

    Args:
        title: What the data is for, such as the name of the model.
        report: As `build_report` gives it.
        shown: Records to show, of one split.
        split: Its name.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape_text(title)}</title><style>{DATA_PAGE_STYLE.read_text(encoding='utf-8')}</style></head><body>",
            f"<h1>{escape_text(title)}</h1>",
            *file_lines(report),
            "<h2>Splits</h2>",
            *count_table(report["splits"]),
            *length_histograms(report["lengths"]),
            *finding_lists(report),
            *bar_cards("Sources", report["sources"]),
            *bar_cards("Labels", report.get("labels", {})),
            *target_tables(report.get("targets", {})),
            *record_cards(shown, split),
            "</body></html>\n",
        ]
    )


def record_cards(shown: Sequence[PreviewRecord], split: str) -> Iterator[str]:
    """Records, each token in its colour."""
    yield f"<h2>Records of {escape_text(split)}</h2>"
    kinds = {piece.trained for record in shown for part in record.sequences for piece in part}
    yield '<p class="legend">' + ("" if kinds == {None} else '<span class="learned">trained</span> ')
    yield '<span class="masked">' + ("input" if kinds == {None} else "masked") + "</span> "
    yield '<span class="special masked">special</span></p>'
    for record in shown:
        yield f'<div class="card full"><h3>{escape_text(record.title)}</h3>'
        for place, part in enumerate(record.sequences):
            yield from (f"<p>{escape_text(name)}</p>" for name in record.names[place : place + 1])
            yield f'<div class="record">{"".join(map(token_span, part))}</div>'
        yield from (f"<p><b>{escape_text(record.target)}</b></p>" for _ in range(bool(record.target)))
        yield "</div>"


def token_span(piece: TokenPiece) -> str:
    """One piece of text with its marks."""
    kind = ("learned" if piece.trained else "masked") + (" special" if piece.special else " token")
    return f'<span class="{kind}" title="{", ".join(map(str, piece.ids))}">{escape_text(piece.text)}</span>'


MAX_BARS = 30  # labels or sources with a bar


def file_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The files, the template and the notes."""
    for name, digest in report["files"].items():
        yield f'<p class="soft">{escape_text(name)} (sha256 {escape_text(str(digest)[:12])})</p>'
    if "template" in report:
        yield f'<p class="soft">template: {escape_text(report["template"])}</p>'
    for note in report["notes"]:
        yield f"<p>{escape_text(note)}</p>"


def count_table(splits: Mapping[str, Mapping[str, int | float]]) -> Iterator[str]:
    """The table of counts."""
    names = list(dict.fromkeys(name for row in splits.values() for name in row))
    yield (
        '<div class="wide"><table><tr><th>split</th>'
        + "".join(f"<th>{escape_text(name)}</th>" for name in names)
        + "</tr>"
    )
    for split, row in splits.items():
        cells = "".join(f"<td>{row.get(name, 0):,}</td>" for name in names)
        yield f"<tr><td>{escape_text(split)}</td>{cells}</tr>"
    yield "</table></div>"


def length_histograms(held: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A histogram for each split."""
    yield '<h2>Lengths, in tokens</h2><div class="cards">'
    for name, spread in held.items():
        if spread:
            high, most, edges = max(spread["rows"]), spread["quantiles"]["most"], spread["edges"]
            columns = "".join(
                f'<span style="height:{100 * rows / high:.1f}%" title="{low} to {last}: {rows:,} rows"></span>'
                for rows, low, last in zip(
                    spread["rows"], edges, [*(edge - 1 for edge in edges[1:-1]), most], strict=False
                )
            )
            yield f'<div class="card"><h3>{escape_text(name)}: {min_median_max(spread["quantiles"])}</h3>'
            yield f'<div class="bars">{columns}</div>'
            yield f'<div class="axis"><span>{edges[0]:,}</span><span>{most:,}</span></div></div>'
    yield "</div>"


def finding_lists(report: Mapping[str, Any]) -> Iterator[str]:
    """Duplicates and leaks, with places."""
    near = report["leaks"]["near"]
    within = [
        *((name, entry) for name, entry in report["duplicates"].items()),
        *((("different labels", report["conflicts"]),) if report.get("conflicts", {}).get("texts") else ()),
    ]
    across = [
        *((" and ".join(entry["splits"]) + ", copies", entry) for entry in report["leaks"]["exact"]),
        *((" and ".join(entry["splits"]) + ", alike", entry) for entry in (near["pairs"] if near else ())),
    ]
    for title, told, entries in (
        ("Duplicates within a split", describe_duplicates(report), within),
        ("Leaks across splits", describe_leaks(report), across),
    ):
        yield f"<h2>{title}</h2><ul>" + "".join(f"<li>{escape_text(line)}</li>" for line in told.split("; ")) + "</ul>"
        yield '<div class="cards">'
        for name, entry in entries:
            yield f'<div class="card"><h3>{escape_text(name)}</h3>'
            yield from map(example_item, entry["examples"])
            yield "</div>"
        yield "</div>"


def example_item(held: Mapping[str, Any]) -> str:
    """One finding: how alike, where, what."""
    alike = f"{held['likeness']:.2f} alike: " if "likeness" in held else ""
    texts = "".join(f"<div>{escape_text(text)}</div>" for text in example_texts(held))
    return f'<div class="example"><div class="soft">{alike}{escape_text(" | ".join(held["places"]))}</div>{texts}</div>'


def bar_cards(title: str, tables: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Counts by name, a card for each split."""
    if tables:
        yield f'<h2>{title}</h2><div class="cards">'
        for split, table in tables.items():
            yield f'<div class="card"><h3>{escape_text(split)}</h3>'
            high = max(table.values(), default=1)
            for name, rows in list(table.items())[:MAX_BARS]:
                bar = f'<i style="width:{100 * rows / high:.1f}%"></i>'
                yield (
                    '<div class="row"><b'
                    f' title="{escape_text(name)}">{escape_text(name)}</b>{bar}<em>{rows:,}</em></div>'
                )
            if rest := list(table.values())[MAX_BARS:]:
                yield f'<p class="soft">{len(rest):,} others, {sum(rest):,} rows</p>'
            yield "</div>"
        yield "</div>"


def target_tables(held: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """Quantiles of each target and split."""
    for target, splits in held.items():
        names = list(next(iter(splits.values())))
        head = "".join(f"<th>{name}</th>" for name in names)
        yield f'<h2>Target {escape_text(target)}</h2><div class="wide"><table><tr><th>split</th>{head}</tr>'
        for split, row in splits.items():
            yield (
                f"<tr><td>{escape_text(split)}</td>" + "".join(f"<td>{row[name]:,.6g}</td>" for name in names) + "</tr>"
            )
        yield "</table></div>"


def escape_text(text: str) -> str:
    """Text of the data as text of a page."""
    return escape("".join(letter if letter.isprintable() or letter == "\n" else escape_char(letter) for letter in text))
