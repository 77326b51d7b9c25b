"""The report on a search: what it says, that its command is one that a search reads, and how long it takes."""

import json
import math
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from support.made_up_studies import study
from tunelab.analysis.configurations import Configuration, setting_from_values
from tunelab.analysis.next_space import find_boundary_hits, suggest_next_space
from tunelab.report.document import Command, Document, Paragraph, Section, Table
from tunelab.report.render import render_html, render_markdown, write_report
from tunelab.report.study_checks import boundary_paragraph, curve_verdict
from tunelab.report.study_reader import read_study_results
from tunelab.report.study_report import build_study_report, probability_best
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.space import NumericRange, parse_dimension
from tunelab.search.study_artifacts import write_study_report

TITLES = [
    "Summary", "Effect of each setting", "Importance", "What to run next", "Ranks", "History", "Checks",
    "Time and cost", "Trials", "Provenance",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of 40 trials whose best rate lies beyond its range."""
    return study(tmp_path_factory.mktemp("study") / "rates")


@pytest.fixture(scope="module")
def document(root: Path) -> Document:
    """The report on it."""
    return build_study_report(read_study_results(root))


def section(document: Document, title: str) -> Section:
    """A section by its title."""
    return next(one for one in document.sections if one.title == title)


def grid(document: Document, name: str) -> Table:
    """A table by its name."""
    return next(one for one in document.tables() if one.name == name)


def next_command(document: Document) -> list[str]:
    """The words of the command for the next search."""
    blocks = section(document, "What to run next").blocks
    return shlex.split(next(one.text for one in blocks if isinstance(one, Command) and " -m " in one.text))


def test_everything_that_a_study_teaches_is_there(document: Document) -> None:
    names = [chart.name for chart in document.charts()]

    assert [one.title for one in document.sections] == TITLES
    assert "cannot be shown:" not in render_markdown(document)
    assert len(set(names)) == len(names)
    assert set(names) >= {
        "history", "effect_lr", "average_lr", "effect_optimizer", "importance", "importance_top", "interactions",
        "parallel", "best_of_n", "learning_curves", "cost",
    }  # fmt: skip


def test_the_best_stands_first_and_a_broken_trial_is_not_ranked(document: Document, root: Path) -> None:
    lines = [json.loads(line) for line in (root / "trials.jsonl").read_text().splitlines()]
    whole = sorted((one for one in lines if one["value"] is not None), key=lambda one: float(one["value"]))

    table = grid(document, "ranked")

    assert [row[1] for row in table.rows] == [str(one["number"]) for one in whole]
    assert len(grid(document, "trials").rows) == len(lines) == len(table.rows) + 1


def test_the_rate_matters_most_and_its_border_is_told_with_what_to_do(document: Document) -> None:
    rows = {str(row[0]): row for row in grid(document, "importance").rows}
    steps = {str(row[0]): row[1] for row in grid(document, "next").rows}

    assert max(rows, key=lambda name: float(rows[name][2] or 0)) == "lr"
    assert "stands at the high boundary of what was searched" in render_markdown(document)
    assert steps["lr"] == "move" and "move" not in (steps["regularization.dropout"], steps["optimizer"])


def test_the_next_search_is_one_that_a_search_reads(document: Document, root: Path) -> None:
    words = next_command(document)

    assert words[:3] == ["python", "train.py", "-m"]
    assert "data=mine" in words and "search=random" in words
    assert f"search.warm_start=[{root}]" in words
    (folder,) = [word for word in words if word.startswith("hydra.sweep.dir=")]
    assert Path(folder.partition("=")[2]).name == "rates_2"
    OverridesParser.create().parse_overrides(words[3:])
    given = dict(word.split("=", 1) for word in words[3:])
    rate, rank = parse_dimension("lr", given["lr"]), parse_dimension("adapter.rank", given["adapter.rank"], 8)
    assert isinstance(rate, NumericRange) and rate.log and rate.low < 1e-3 < 5e-3 < rate.high
    assert isinstance(rank, NumericRange) and rank.integer and rank.log


def test_seeds_give_an_interval_and_the_chance_to_be_the_best(tmp_path: Path) -> None:
    document = build_study_report(read_study_results(study(tmp_path, 12, seeds=3)))

    table = grid(document, "ranked")
    first = dict(zip(table.columns, table.rows[0], strict=True))
    chances = [float(row[table.columns.index("p(best)")] or 0) for row in table.rows]

    assert first["seeds"] == 3
    assert float(first["low"] or 0) < float(first["val/loss"] or 0) < float(first["high"] or 0)
    assert chances[0] > 0.5 and sum(chances) == pytest.approx(1)
    assert "seed=0,1,2" in next_command(document)
    assert "Seeds of one configuration differ by" in render_markdown(document)


def test_two_equal_configurations_are_the_best_half_of_the_time_each() -> None:
    chances = probability_best(
        [Configuration({}, (1.0,), (0,)), Configuration({}, (1.0,), (1,)), Configuration({}, (9.0,), (2,))], 0.1
    )

    assert [float(chance or 0) for chance in chances] == pytest.approx([0.5, 0.5, 0.0], abs=0.03)
    assert probability_best([Configuration({}, (1.0,), (0,))], math.nan) == [None]


def test_a_study_without_its_request_or_with_torn_files_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    root = study(tmp_path / "old")
    (root / "search.json").unlink()
    text = render_markdown(build_study_report(read_study_results(root)))
    assert "boundaries are those of what was tried" in text and "high boundary of what was tried" in text

    (root / "study.json").write_text("{")
    (root / "trials.jsonl").write_text("")
    text = render_markdown(build_study_report(read_study_results(root)))
    assert "cannot be read" in text and "No trial left a score" in text


def test_words_of_a_study_cannot_act_on_the_page(tmp_path: Path) -> None:
    root = study(tmp_path / "bad", 12)
    lines = (root / "trials.jsonl").read_text().replace("sgd", "<script>alert(1)</script>")
    (root / "trials.jsonl").write_text(lines)

    page = render_html(build_study_report(read_study_results(root)))

    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_two_hundred_runs_take_less_than_ten_seconds_and_a_megabyte(tmp_path: Path) -> None:
    root, start = study(tmp_path / "many", 200), time.process_time()

    files = write_report(build_study_report(read_study_results(root)), tmp_path / "out")

    assert time.process_time() - start < 10
    assert files["report"].stat().st_size < 1_000_000


def test_a_search_leaves_its_report_in_its_folder(root: Path) -> None:
    page = write_study_report(StudyFolder(root))

    assert page == root / "report" / "report.html" and "What to run next" in page.read_text()


def drawn(document: Document, name: str) -> str:
    """A drawing of a report by its name."""
    return next(chart.svg for chart in document.charts() if chart.name == name)


@pytest.mark.parametrize("name", ["effect_lr", "average_lr"])
def test_an_effect_shows_every_trial_on_the_whole_searched_range_and_rings_the_best(
    document: Document, name: str
) -> None:
    svg = drawn(document, name)
    labels = re.findall(r">([^<>]+)</text>", svg)

    assert svg.count('r="2.6"') == 40 and svg.count('r="6"') == 1 and "best" in labels
    assert svg.count("m-3.5 -3.5l7 7m0 -7l-7 7") == 1  # the trial that broke
    assert {"1e-5", "0.001"} <= {*labels}  # ends of what was searched


def test_points_of_an_effect_stand_where_their_trials_do(document: Document) -> None:
    svg = drawn(document, "effect_lr")
    points = re.findall(
        r'<circle cx="([\d.]+)" cy="([\d.]+)" r="2.6"[^>]*><title>trial \d+: ([^,]+), ([^<]+)</title>', svg
    )
    rates, places = [float(rate) for *_, rate, _ in points], [float(x) for x, *_ in points]
    line = np.polyfit(np.log10(rates), places, 1)
    assert np.abs(np.polyval(line, np.log10(rates)) - places).max() < 1  # within a unit of the drawing
    losses, heights = [float(loss) for *_, loss in points], [float(y) for _, y, *_ in points]
    assert np.corrcoef(losses, heights)[0, 1] < -0.999


def test_a_choice_shows_every_trial_on_its_bar(document: Document) -> None:
    svg = drawn(document, "effect_optimizer")
    assert svg.count('class="paper" stroke') == 40 and len(re.findall(r"\d best</text>", svg)) == 1


def test_few_trials_are_points_without_a_line_or_a_band(tmp_path: Path) -> None:
    few = build_study_report(read_study_results(study(tmp_path / "few", trials=10)))
    svg = drawn(few, "effect_lr")
    assert svg.count('r="2.6"') == 10 and 'fill-opacity=".16"' not in svg and 'stroke-linejoin="round"' not in svg
    assert "Too few trials for a line" in next(chart.caption for chart in few.charts() if chart.name == "effect_lr")


def test_the_heading_of_the_next_search_says_what_is_done(document: Document) -> None:
    (says,) = (
        one.description
        for one in section(document, "What to run next").blocks
        if isinstance(one, Command) and " -m " in one.text
    )
    assert says == "The same search, moved to where the best points:"


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        (["settled", "settled", "improving"], "The best have settled"),
        (["never better", "never better", "settled"], "past their best step"),
        (["improving"], "The best was still getting better at its end"),
        (["improving", "improving", "settled"], "2 of the 3 best were still getting better at their end"),
        (["settled", "improving", "early", "never better"], "disagree"),
    ],
)
def test_the_verdict_on_the_curves_of_the_best_agrees_with_their_table(kinds: list[str], says: str) -> None:
    assert says in curve_verdict(kinds).text


def test_a_boundary_is_a_warning_only_where_the_next_search_would_go_beyond_it() -> None:
    sizes = setting_from_values("batch_size", [8, 16, 32, 64])

    def verdict(scores: dict[int, float], noise: float) -> Paragraph:
        ranked = [Configuration({"batch_size": size}, (score,), (0,)) for size, score in scores.items()]
        (hit,) = find_boundary_hits([sizes], ranked)
        (step,) = suggest_next_space([sizes], ranked, [hit], [], weight={}, explained=0.0, legal={}, noise=noise)
        said = boundary_paragraph(hit, ranked, noise)
        assert (said.tone == "warn") == (step.action != "keep")
        return said

    assert verdict({8: 1.0, 16: 2.0, 32: 3.0, 64: 4.0}, 0.01).text.endswith("a better one may lie beyond.")
    alike = verdict({8: 1.0, 16: 1.01, 32: 1.6, 64: 1.3}, 0.5)
    assert alike.text.endswith("but the value beside it is not worse beyond noise.")
