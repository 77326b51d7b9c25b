"""A document as one HTML page that loads nothing and works without its script.  Pure, but for the page's own files."""

import base64
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from tunelab.charts.style import STYLE as DRAWN
from tunelab.charts.words import safe
from tunelab.report.blocks import MARKS, Block, Cards, Chart, Command, Document, Grid, Samples, Section, Verdicts, Words
from tunelab.report.html_table import table

HERE = Path(__file__).parent


def html(document: Document) -> str:
    """The whole page.  All text is escaped; only the drawings of `tunelab.charts` are taken as they are.

    The content policy lets nothing load and only this page's own script run, so text of a data set cannot act even if
    an escape were forgotten.
    """
    style = (HERE / "page.css").read_text(encoding="utf-8") + DRAWN
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    anchors = [f"s{place}" for place in range(len(document.sections))]
    links = "".join(
        f'<a href="#{anchor}">{safe(section.title)}</a>'
        for anchor, section in zip(anchors, document.sections, strict=True)
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{safe(document.title)}</title><style>{style}</style></head><body><main>",
            f'<header><h1>{safe(document.title)}</h1><p class="soft">{safe(document.subtitle)}</p></header>',
            f'<nav aria-label="Sections">{links}</nav>',
            *(
                piece
                for anchor, one in zip(anchors, document.sections, strict=True)
                for piece in section_html(anchor, one)
            ),
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def section_html(anchor: str, section: Section) -> Iterator[str]:
    """A section: its title, then its blocks, drawings side by side where there is room."""
    yield f'<section id="{anchor}"><h2>{safe(section.title)}</h2>'
    if section.lead:
        yield f'<p class="soft">{safe(section.lead)}</p>'
    for drawings, blocks in itertools.groupby(section.blocks, lambda block: isinstance(block, Chart)):
        if drawings:
            yield '<div class="figures">'
        for block in blocks:
            yield from block_html(block)
        if drawings:
            yield "</div>"
    yield "</section>"


def block_html(block: Block) -> Iterator[str]:
    """One block."""
    match block:
        case Words(text, tone):
            yield f'<p class="{tone}">{safe(text)}</p>'
        case Verdicts(lines):
            yield '<ul class="verdicts">'
            yield from (verdict(line) for line in lines)
            yield "</ul>"
        case Cards(cards):
            yield '<dl class="cards">'
            for card in cards:
                note = f'<dd class="note">{safe(card.note)}</dd>' if card.note else ""
                yield f"<div><dt>{safe(card.name)}</dt><dd>{safe(card.value)}</dd>{note}</div>"
            yield "</dl>"
        case Chart(_, svg, words, _, wide):
            below = f"<figcaption>{safe(words)}</figcaption>" if words else ""
            kind = "whole" if wide else "half"
            drawing = svg.replace(f"<style>{DRAWN}</style>", "")  # the page has it once
            yield f'<figure class="{kind}">{drawing}{below}</figure>'
        case Grid():
            yield from table(block)
        case Command(text, words):
            said = f'<p class="soft">{safe(words)}</p>' if words else ""
            yield f'<div class="command">{said}<pre tabindex="0"><code>{safe(text)}</code></pre></div>'
        case Samples():
            yield from samples(block)


def verdict(line: Words) -> str:
    """A sentence with a word for its tone: colour alone tells nothing to some readers and in print."""
    mark = f"<b>{MARKS[line.tone]}</b> " if MARKS[line.tone] else ""
    return f'<li class="{line.tone}">{mark}{safe(line.text)}</li>'


def samples(block: Samples) -> Iterator[str]:
    """Records one below the other, each part under its name."""
    if block.words:
        yield f'<p class="soft">{safe(block.words)}</p>'
    yield '<div class="samples">'
    for sample in block.samples:
        yield f'<article class="{sample.tone}"><h3>{safe(sample.title)}</h3><dl>'
        yield "".join(part(name, text) for name, text in sample.parts)
        yield "</dl></article>"
    yield "</div>"


def part(name: str, text: str) -> str:
    """A named text, its line breaks kept."""
    return f'<dt>{safe(name)}</dt><dd dir="auto">{safe(text) or "<i>empty</i>"}</dd>'
