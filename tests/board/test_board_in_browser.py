"""The board in a real browser: it filters, compares, opens reports and follows a run that is training."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.headless_browser import Browser, program
from support.made_up_runs import card, curves, labelled_run
from support.made_up_studies import study
from tunelab.board import pages
from tunelab.board.server import BoardServer
from tunelab.runs.run_dir import RunDirectory

ROWS = "[...document.querySelectorAll('#rows tr')].filter(row => !row.hidden)"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Browser, BoardServer, Path]]:
    """A browser before the board of two runs and a search."""
    executable = program()
    if executable is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    monkeypatch.setattr(pages, "REFRESH_SECONDS", 0.3)
    root = tmp_path / "outputs"
    labelled_run(root / "one")
    labelled_run(root / "two", seed=1, status="failed", reason="disk")
    study(root / "search", 6)
    with BoardServer(root, 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with Browser(executable, tmp_path / "profile") as page:
            page.look(width=1280)
            visit(page, server.address)
            yield page, server, root
        server.shutdown()


def visit(page: Browser, address: str) -> None:
    """Open an address, to its end."""
    page.ask("Page.navigate", url=address)
    until(page, "document.readyState === 'complete' && location.protocol === 'http:'")


def until(page: Browser, condition: str) -> None:
    """Wait for what a script says."""
    end = time.monotonic() + 300
    while not page.run(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def test_the_board_filters_compares_and_follows_a_run(board: tuple[Browser, BoardServer, Path]) -> None:
    page, server, root = board

    # A chip filters by status
    page.run("document.querySelector('[data-filter=\"status=failed\"]').click()")
    assert page.run(f"{ROWS}.map(row => row.dataset.key)") == ["two"]
    page.run("document.querySelector('[data-filter=\"\"]').click()")
    assert page.run(f"{ROWS}.length") == 3

    # A tick stays while a run begins to train, and its curve is there without a reload
    page.run("[...document.querySelectorAll('input[name=path]')].filter(b => b.value !== 'search').map(b => b.click())")
    live = RunDirectory(root / "live")
    live.root.mkdir()
    live.write_manifest(card(status="running", best=None))
    curves(live, [{"step": at, "epoch": 0, "train/loss": 1 / (at + 1)} for at in range(9)])
    held = RunDirectory.open(live.root, write=True)
    until(page, "document.querySelectorAll('#live figure svg').length === 1")
    assert page.run(f"{ROWS}.length") == 4
    assert page.run("document.querySelectorAll('input[name=path]:checked').length") == 2
    held.close()
    until(page, "document.querySelectorAll('#live figure svg').length === 0")

    # The two that are ticked are compared
    page.run("document.querySelector('button[type=submit]').click()")
    until(page, "document.title.includes('against')")
    assert page.run("document.querySelector('header a').getAttribute('href')") == "/"
    visit(page, f"{server.address}report?path=search")
    assert page.run("document.title").startswith("Study")
    assert page.complaints == []
    assert [one for one in page.requests if not one.startswith((server.address, "about:", "data:"))] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_board_fits_the_screen(board: tuple[Browser, BoardServer, Path], width: int) -> None:
    page, server, _ = board
    page.look(width=width, dark=True)
    visit(page, server.address)

    assert page.run("document.documentElement.scrollWidth") <= width and page.complaints == []
