"""The page in a real browser: nothing complains, tables sort and filter, drawings are there, a phone shows it whole."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from support.headless_browser import Browser, program
from support.made_up_runs import answered_run, labelled_run
from tunelab.report.render import write_report
from tunelab.report.run_reader import read_run_results
from tunelab.report.run_report import build_run_report

ROWS = "[...document.querySelectorAll('#t-worst_errors tbody tr')].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the report on a run."""
    executable = program()
    if executable is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    root = tmp_path_factory.mktemp("browser")
    write_report(build_run_report(read_run_results(labelled_run(root / "run").root)), root / "out")
    with Browser(executable, root / "profile") as found:
        found.look(width=1280)
        found.open(root / "out" / "report.html")
        yield found


def test_nothing_complains_and_nothing_is_loaded(browser: Browser) -> None:
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith(("file:", "about:", "data:"))] == []
    assert browser.run("document.title").startswith("Run "), "a label of the data did not change it"


def test_a_table_sorts_by_number_and_turns_round(browser: Browser) -> None:
    browser.run("document.querySelector('#t-worst_errors').closest('.grid').querySelector('.more button').click()")
    head = "[...document.querySelectorAll('#t-worst_errors th')].find(h => h.textContent === 'p(true)')"
    column = f"{ROWS}.map(row => Number(row.cells[{head}.cellIndex].dataset.v))"

    browser.run(f"{head}.querySelector('button').click()")
    up = browser.run(column)
    browser.run(f"{head}.querySelector('button').click()")
    down = browser.run(column)

    assert up == sorted(up) and len(set(up)) > 5
    assert down == up[::-1]
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"


@pytest.mark.parametrize(("words", "kept"), [("p(true)<0.2 ham", "value < 0.2"), ("p(true)>=0.2", "value >= 0.2")])
def test_a_table_filters_by_words_and_by_values(browser: Browser, words: str, kept: str) -> None:
    field = "document.querySelector('[data-for=t-worst_errors]')"
    whole = browser.run(f"{ROWS}.length")

    browser.run(f"{field}.value = {words!r}; {field}.dispatchEvent(new Event('input'))")
    left = browser.run(f"{ROWS}.length")
    right = browser.run(f"{ROWS}.every(row => {{ const value = Number(row.cells[4].dataset.v); return {kept}; }})")
    browser.run(f"{field}.value = ''; {field}.dispatchEvent(new Event('input'))")

    assert 0 < left < whole and right
    assert browser.run(f"{ROWS}.length") == whole


def test_a_point_tells_its_value_under_the_pointer(browser: Browser) -> None:
    where = browser.run(
        "(async () => { const mark = document.querySelector('figure svg circle[aria-label]'); mark.scrollIntoView();"
        " window.scrollBy(0, -200); for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);"
        " const box = mark.getBoundingClientRect(); return [box.x + 2, box.y + 2]; })()"
    )

    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=where[0], y=where[1])

    assert browser.run("document.getElementById('tip').hidden") is False
    assert "train/loss" in browser.run("document.getElementById('tip').textContent")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_and_its_drawings_are_not_blank(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    browser.look(width=width, dark=dark)

    assert browser.run("document.documentElement.scrollWidth") <= width
    visible = "[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())"
    assert browser.run(f"{visible}.length") > 3
    assert browser.run(f"{visible}.every(s => s.getBoundingClientRect().height > 80)")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)"
    )
    assert ink(browser, tmp_path) > 40


def test_paper_cuts_nothing_off_and_names_the_columns_on_every_sheet(browser: Browser, tmp_path: Path) -> None:
    # Given a run that answered questions, on the width that A4 leaves between its margins
    write_report(build_run_report(read_run_results(answered_run(tmp_path / "run").root)), tmp_path / "out")
    before = Path(unquote(urlparse(browser.run("location.href")).path))
    browser.look(width=718)
    for page in (before, tmp_path / "out" / "report.html"):
        browser.open(page)
        browser.ask("Emulation.setEmulatedMedia", media="print")

        # Then every box holds all of its content, and what heads a column is text, which a browser repeats
        cut = "box => box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1"
        boxes = "[...document.querySelectorAll('.wide, pre, article dd')]"
        assert browser.run("document.documentElement.scrollWidth") <= 718
        assert browser.run(f"{boxes}.length") > 4
        assert browser.run(f"{boxes}.filter({cut}).map(box => box.textContent.slice(0, 80))") == []
        names = "[...document.querySelectorAll('th')].map(h => getComputedStyle(h, '::after').content)"
        assert browser.run(names) == browser.run(
            "[...document.querySelectorAll('th')].map(h => JSON.stringify(h.textContent.replaceAll('.', '.\u200b')))"
        )
        browser.ask("Emulation.setEmulatedMedia", media="")
    browser.open(before)


def ink(browser: Browser, folder: Path) -> int:
    """How many different lines of pixels the second drawing has."""
    browser.run("document.querySelectorAll('figure')[1].scrollIntoView()")
    box = browser.run("(() => { const b = document.querySelectorAll('figure svg')[1].getBoundingClientRect();"
                      " return [b.x + scrollX, b.y + scrollY, b.width, b.height]; })()")  # fmt: skip
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
    found = browser.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    return len(set(lines_of(found["data"])))


def lines_of(data: str) -> list[bytes]:
    """The lines of a PNG as they are stored: of a blank picture they are all alike."""
    raw, at, parts, width = base64.b64decode(data), 8, [], 0
    while at < len(raw):
        size, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        body = raw[at + 8 : at + 8 + size]
        width = int.from_bytes(body[:4], "big") if kind == b"IHDR" else width
        parts += [body] if kind == b"IDAT" else []
        at += size + 12
    pixels = zlib.decompress(b"".join(parts))
    rows = len(pixels) // (width * 4 + 1) if len(pixels) % (width * 4 + 1) == 0 else len(pixels) // (width * 3 + 1)
    wide = len(pixels) // rows
    return [pixels[wide * row : wide * (row + 1)] for row in range(rows)]
