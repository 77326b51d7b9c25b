"""One HTML page of headings, paragraphs, drawings and tables: no script, nothing loaded, light, dark and in print."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.charts.words import safe

STYLE = Path(__file__).with_suffix(".css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the page holds data, so nothing in it may act


@dataclass(frozen=True)
class Heading:
    """A title inside the page."""

    words: str


@dataclass(frozen=True)
class Paragraph:
    """Sentences.  With `soft`, in a paler ink."""

    words: str
    soft: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawing of this package, and a sentence below it."""

    svg: str
    words: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under their names; text stands left in the first column and right in the others."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: str = ""


Section = Heading | Paragraph | Figure | Table


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page.  All text is escaped; only the drawings are taken as they are."""
    body = [piece for section in sections for piece in drawn(section)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{safe(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head><body><main>",
            f"<h1>{safe(title)}</h1>",
            *body,
            "</main></body></html>\n",
        ]
    )


def drawn(section: Section) -> Iterator[str]:
    """One section as HTML."""
    match section:
        case Heading(words):
            yield f"<h2>{safe(words)}</h2>"
        case Paragraph(words, soft):
            yield f'<p class="soft">{safe(words)}</p>' if soft else f"<p>{safe(words)}</p>"
        case Figure(svg, words):
            yield f"<figure>{svg}"
            yield f"<figcaption>{safe(words)}</figcaption></figure>" if words else "</figure>"
        case Table(columns, rows, words):
            yield '<div class="wide"><table>'
            yield f"<caption>{safe(words)}</caption>" if words else ""
            yield (
                "<thead><tr>"
                + "".join(f'<th scope="col">{safe(name)}</th>' for name in columns)
                + "</tr></thead><tbody>"
            )
            yield from ("<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            yield "</tbody></table></div>"
