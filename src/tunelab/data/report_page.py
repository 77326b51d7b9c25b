"""The data report as one page: no script, nothing loaded from anywhere, light and dark.  Pure: values in, HTML out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab.data.pieces import Piece
from tunelab.data.records_shown import Shown
from tunelab.data.report_sections import bars, counts, files, findings, lengths, safe, targets

STYLE = Path(__file__).with_suffix(".css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the page holds data, so nothing in it may act


def page(title: str, report: Mapping[str, Any], shown: Sequence[Shown], split: str) -> str:
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
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{safe(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body>",
            f"<h1>{safe(title)}</h1>",
            *files(report),
            "<h2>Splits</h2>",
            *counts(report["splits"]),
            *lengths(report["lengths"]),
            *findings(report),
            *bars("Sources", report["sources"]),
            *bars("Labels", report.get("labels", {})),
            *targets(report.get("targets", {})),
            *records(shown, split),
            "</body></html>\n",
        ]
    )


def records(shown: Sequence[Shown], split: str) -> Iterator[str]:
    """Records, each token in its colour."""
    yield f"<h2>Records of {safe(split)}</h2>"
    kinds = {piece.trained for record in shown for part in record.parts for piece in part}
    yield '<p class="legend">' + ("" if kinds == {None} else '<span class="learned">trained</span> ')
    yield '<span class="masked">' + ("input" if kinds == {None} else "masked") + "</span> "
    yield '<span class="special masked">special</span></p>'
    for record in shown:
        yield f'<div class="card full"><h3>{safe(record.title)}</h3>'
        for place, part in enumerate(record.parts):
            yield from (f"<p>{safe(name)}</p>" for name in record.names[place : place + 1])
            yield f'<div class="record">{"".join(map(token, part))}</div>'
        yield from (f"<p><b>{safe(record.answer)}</b></p>" for _ in range(bool(record.answer)))
        yield "</div>"


def token(piece: Piece) -> str:
    """One piece of text with its marks."""
    kind = ("learned" if piece.trained else "masked") + (" special" if piece.special else " token")
    return f'<span class="{kind}" title="{", ".join(map(str, piece.ids))}">{safe(piece.text)}</span>'
