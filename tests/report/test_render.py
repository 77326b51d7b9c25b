"""A page without a script holds together, runs nothing and loads nothing."""

from html.parser import HTMLParser

import pytest

from tunelab.report.charts.axes import Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, BulletList, Chart, Document, Paragraph, Section, Table, Verdict
from tunelab.report.render import render_html, render_markdown

VOID = {"meta"}


def page(title: str, heading: str, blocks: list[Block]) -> str:
    """A page of one section."""
    return render_html(Document(title, "", [Section(heading, blocks)]), interactive=False)


class Balanced(HTMLParser):
    """Collects tags and addresses, and fails where an element is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_is_balanced_runs_nothing_and_loads_nothing() -> None:
    chart = line_chart([Series("a", [1, 2], [1, 2])], title="t", x_label="x", y_label="y")
    text = page("A <b>page", "H", [Paragraph("<p"), Chart("c", chart, "c"), Table("t", ["a"], [["<td>"]], "words")])
    read = Balanced()

    read.feed(text)

    assert not read.open
    assert not read.addresses
    assert "script" not in read.seen
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert {"h1", "h2", "p", "svg", "table", "th", "td"} <= set(read.seen)


def test_text_of_a_page_is_escaped() -> None:
    text = page("<i>", "<i>", [Paragraph("<i>"), Chart("c", "", "<i>"), Table("t", ["<i>"], [["<i>"]], "<i>")])

    assert "<i>" not in text
    assert text.count("&lt;i&gt;") == 8


def test_a_page_is_in_the_language_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_LANG", "zh")
    blocks = [BulletList([Paragraph("p", "warn")]), Verdict("v", "good")]
    document = Document("t", "", [Section("Verdict", blocks)])

    text = render_html(document)

    assert '<html lang="zh-CN">' in text and "<h2>结论</h2>" in text and "警告" in text and "全部显示" in text
    assert "## 结论" in render_markdown(document) and "**良好** v" in render_markdown(document)
    monkeypatch.setenv("TUNELAB_LANG", "en")
    assert '<html lang="en">' in render_html(document) and "data-words" not in render_html(document)
