"""One HTML page of headings, paragraphs, charts and tables: no script, nothing loaded, light, dark and in print."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.report.charts.svg import escape_markup

STYLE_SHEET = Path(__file__).with_suffix(".css")
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # the page holds data, so nothing in it may act


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


def render_page(title: str, sections: Sequence[Section]) -> str:
    """The whole page.  All text is escaped; only the drawings are taken as they are."""
    body = [piece for section in sections for piece in section_html(section)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape_markup(title)}</title><style>{STYLE_SHEET.read_text(encoding='utf-8')}</style></head><body><main>",
            f"<h1>{escape_markup(title)}</h1>",
            *body,
            "</main></body></html>\n",
        ]
    )


def section_html(section: Section) -> Iterator[str]:
    """One section as HTML."""
    match section:
        case Heading(words):
            yield f"<h2>{escape_markup(words)}</h2>"
        case Paragraph(words, soft):
            yield f'<p class="soft">{escape_markup(words)}</p>' if soft else f"<p>{escape_markup(words)}</p>"
        case Figure(svg, words):
            yield f"<figure>{svg}"
            yield f"<figcaption>{escape_markup(words)}</figcaption></figure>" if words else "</figure>"
        case Table(columns, rows, words):
            yield '<div class="wide"><table>'
            yield f"<caption>{escape_markup(words)}</caption>" if words else ""
            yield (
                "<thead><tr>"
                + "".join(f'<th scope="col">{escape_markup(name)}</th>' for name in columns)
                + "</tr></thead><tbody>"
            )
            yield from ("<tr>" + "".join(f"<td>{escape_markup(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            yield "</tbody></table></div>"
