"""The page of a search in a real browser: filtering a table fades the lines of trials that do not fit."""

from pathlib import Path

import pytest

from support.headless_browser import Browser, program
from support.made_up_studies import study
from tunelab.report.render import write_report
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report


def test_the_page_of_a_search_filters_its_drawings_and_fits_a_phone(tmp_path: Path) -> None:
    executable = program()
    if executable is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    write_report(build_study_report(read_study_results(study(tmp_path / "study"))), tmp_path / "out")
    lines = "[...document.querySelectorAll('svg path[data-key]')]"
    field = "document.querySelector('[data-for=t-ranked]')"
    shown = "[...document.querySelectorAll('#t-ranked tbody tr')].filter(row => !row.hidden)"
    note = "document.querySelector('#t-ranked').closest('.grid').querySelector('.more')"
    with Browser(executable, tmp_path / "profile") as page:
        page.look(width=390, dark=True)
        page.open(tmp_path / "out" / "report.html")

        assert page.run(f"{shown}.length") == 15 and page.run(f"{note}.textContent").startswith("15 of 40 rows")
        page.run(f"{note}.querySelector('button').click()")
        assert page.run(f"{shown}.length") == 40 and page.run(f"{note}.textContent").startswith("40 of 40 rows")
        assert page.run(f"{lines}.length") == 40 and page.run(f"{lines}.filter(l => l.matches('.off')).length") == 0
        page.run(f"{field}.value = 'optimizer=sgd'; {field}.dispatchEvent(new Event('input'))")
        left = page.run(f"{shown}.length")
        assert 0 < left < 40 and page.run(f"{lines}.filter(l => !l.matches('.off')).length") == left
        page.run(f"{field}.value = 'lr>0.0005'; {field}.dispatchEvent(new Event('input'))")
        assert page.run(f"{shown}.every(row => Number(row.cells[3].dataset.v) > 0.0005)")

        column = f"{shown}.map(row => Number(row.cells[2].dataset.v))"
        page.run("document.querySelector('#t-ranked th:nth-child(3) button').click()")
        assert page.run(column) == sorted(page.run(column))
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.run(
            "[...document.querySelectorAll('figure svg')].filter(s => s.checkVisibility())"
            ".every(s => s.getBoundingClientRect().height > 80)"
        )
        assert page.complaints == []
        assert [one for one in page.requests if not one.startswith(("file:", "about:", "data:"))] == []
