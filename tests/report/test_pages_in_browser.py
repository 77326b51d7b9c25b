"""Every page in a real browser, phone to wide screen, light and dark: it fits, complains of nothing and can be read."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.headless_browser import Browser, program
from support.made_up_runs import answered_run, card, labelled_run, numbers_run
from support.made_up_studies import study
from support.paths import ROOT
from tunelab.cli.main import main
from tunelab.report.compose import compose_report
from tunelab.report.render import write_report
from tunelab.runs.run_dir import RunDirectory

AUDIT = (ROOT / "tests" / "support" / "page_audit.js").read_text(encoding="utf-8")
LONG_NAME = "a_name_made_of_every_setting_" + ",".join(f"setting_{place}=0.{place}" for place in range(12))


def bare_run(root: Path) -> None:
    """A run that left its manifest only, and that tells why."""
    root.mkdir()
    RunDirectory(root).write_manifest(card(status="failed", reason="the disk was full", best=None))


def report_on(*make: Callable[[Path], object], name: str = "run") -> Callable[[Path], Path]:
    """How to write the report on what is made."""

    def write(folder: Path) -> Path:
        folders = [folder / f"{name}_{place}" for place in range(len(make))]
        for one, root in zip(make, folders, strict=True):
            one(root)
        write_report(compose_report(folders), folder / "report")
        return folder / "report" / "report.html"

    return write


def preview(folder: Path) -> Path:
    """The page of `tunelab preview`."""
    (folder / "rows.tsv").write_text("text\tlabel\n" + "".join(f"a text {row}\t{'ab'[row % 2]}\n" for row in range(40)))
    words = ["data=classification", f"data.train={folder}/rows.tsv", "data.text=text", "data.label=label"]
    with pytest.raises(SystemExit):
        main(["preview", *words, "--output", str(folder / "preview.html")])
    return folder / "preview.html"


PAGES: dict[str, Callable[[Path], Path]] = {
    "labels": report_on(labelled_run),
    "answers": report_on(answered_run),
    "numbers": report_on(numbers_run),
    "long name": report_on(labelled_run, name=LONG_NAME),
    "bare": report_on(bare_run),
    "comparison": report_on(labelled_run, lambda root: labelled_run(root, seed=1)),
    "nothing in common": report_on(answered_run, bare_run),
    "search": report_on(study),
    "one trial": report_on(lambda root: study(root, 1)),
    "two searches": report_on(lambda root: study(root, 8), lambda root: study(root, 6)),
    "preview": preview,
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    executable = program()
    if executable is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    with Browser(executable, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", PAGES)
def test_a_page_fits_every_screen_and_can_be_read_by_everyone(
    kind: str, language: str, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_LANG", language)
    browser.complaints.clear()
    browser.look(width=1280)
    browser.open(PAGES[kind](tmp_path))
    browser.run("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")

    faults = []
    for width in (390, 768, 1280, 1920):
        for dark in (False, True):
            browser.look(width=width, dark=dark)
            faults += [f"{width} px, {'dark' if dark else 'light'}: {fault}" for fault in browser.run(AUDIT)]

    assert not faults, "\n".join(faults)
    assert browser.complaints == []
