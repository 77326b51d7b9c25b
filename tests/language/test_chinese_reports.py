"""Reports in Chinese: no English sentence is left, and what is long is wrapped between ideographs."""

import re
from html import unescape
from pathlib import Path

import pytest

from support.made_up_runs import answered_run, labelled_run, numbers_run
from support.made_up_studies import study
from tunelab.report.charts.svg import text_width, wrap_text
from tunelab.report.compose import compose_report
from tunelab.report.render import render_csv, render_html, render_markdown

ENGLISH = re.compile(r"\b[A-Za-z][a-z]+ [a-z]+ [a-z]+ [a-z]+\b")
HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_LANG", "zh")


def english_sentences(page: str) -> list[str]:
    """The texts of a page without a Chinese letter that read like a sentence."""
    body = re.sub(r"<style>.*?</style>|<script.*?</script>|<code>.*?</code>", "", page, flags=re.DOTALL)
    texts = [unescape(text).strip() for text in re.findall(r">([^<>]+)<", body)]
    return [text for text in texts if ENGLISH.search(text) and not HAN.search(text) and "=" not in text]


@pytest.mark.parametrize("made_up_run", [labelled_run, answered_run, numbers_run])
def test_a_report_on_a_run_in_chinese_has_no_english_sentence(made_up_run: object, tmp_path: Path) -> None:
    assert callable(made_up_run)
    document = compose_report([made_up_run(tmp_path / "run").root])
    assert english_sentences(render_html(document)) == []
    assert "结论" in render_markdown(document)


def test_a_report_on_a_search_in_chinese_has_no_english_sentence_and_its_csv_files_stay_english(tmp_path: Path) -> None:
    document = compose_report([study(tmp_path / "study")])
    assert english_sentences(render_html(document)) == []
    ranked = next(table for table in document.tables() if table.name == "ranked")
    assert render_csv(ranked).startswith("rank,trial,val/loss,lr")


def test_comparisons_in_chinese_have_no_english_sentence(tmp_path: Path) -> None:
    runs = [labelled_run(tmp_path / name, seed=seed).root for seed, name in enumerate(("one", "other"))]
    searches = [study(tmp_path / name, wanted=rate) for name, rate in (("low", 1e-3), ("high", 1e-2))]
    for paths in (runs, searches):
        assert english_sentences(render_html(compose_report(paths))) == []


def test_a_long_chinese_note_of_a_chart_is_wrapped_and_not_cut() -> None:
    note = "未画出：三个点小于或等于零，对数刻度无法表示。" * 4
    lines = wrap_text(note, 300)
    assert "".join(lines) == note
    assert len(lines) > 2
    assert max(map(text_width, lines)) <= 300
