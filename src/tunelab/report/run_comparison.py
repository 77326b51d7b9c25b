"""The report on two runs over the same test rows, and the section that compares runs with the best.  Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunelab.analysis.row_scores import RowScore, scores_of_predictions
from tunelab.analysis.statistics import (
    McNemarResult,
    PairedComparison,
    effect_size_name,
    mcnemar_test,
    paired_bootstrap,
)
from tunelab.report.charts.axes import Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import (
    Block,
    BulletList,
    CellValue,
    Chart,
    Document,
    Example,
    Examples,
    Paragraph,
    Section,
    Table,
    Tone,
    build_section,
)
from tunelab.report.formatting import format_cell, format_count, format_percent, to_cell, truncate
from tunelab.report.run_reader import RunResults
from tunelab.report.study_reader import scalar_settings
from tunelab.report.training_sections import choose_scale, curve_points
from tunelab.runs.atomic_files import Row

EXAMPLES_TO_READ = 8  # rows on which two runs differ, to read
MAX_COMPARED_RUNS = 20  # runs of a set that are compared with its best

RunPair = tuple[RunResults, RunResults]


def build_run_comparison(first: RunResults, second: RunResults) -> Document:
    """The report on two runs."""
    parts = (
        ("In short", comparison_summary),
        ("Scores", score_differences),
        ("Curves", overlaid_curves),
        ("Settings", setting_differences),
        ("Rows", differing_rows),
    )
    pair = (first, second)
    sections = [section for title, part in parts for section in build_section(title, part, pair)]
    return Document(f"{first.name} against {second.name}", f"{first.root} is A, {second.root} is B", sections)


def comparison_summary(pair: RunPair) -> list[Section]:
    """The section with the comparison in sentences and numbers."""
    one, other, note = shared_rows(*pair)
    if not one:
        reason = f"The two cannot be compared row by row: {note}. Their final scores stand below."
        return [Section("In short", [Paragraph(reason, "warn")])]
    comparisons = compare_rows(one, other, row_scores=pair[0].row_scores)
    lines = [
        Paragraph(comparison_sentence(score, "A", "B"), "good" if score.paired.differs else "plain")
        for score in comparisons
    ]
    lines += [Paragraph(f"{text}") for score in comparisons[:1] if (text := agreement_sentence(score))]
    lines += [Paragraph(f"Mind that {note}.", "warn")] if note else []
    lines.append(
        Paragraph(
            "This is about these two trainings on rows like these. Whether the settings differ takes several seeds of "
            "each: tunelab confirm."
        )
    )
    columns = [
        "score",
        "A",
        "B",
        "B minus A",
        "low",
        "high",
        "p",
        "effect d",
        "only A right",
        "only B right",
        "McNemar p",
    ]
    rows: list[list[CellValue]] = [
        [s.name, s.paired.first, s.paired.second, s.paired.gain, s.paired.low, s.paired.high, s.paired.p,
         None if math.isnan(s.paired.effect) else s.paired.effect,
         *((s.mcnemar.only_first, s.mcnemar.only_second, s.mcnemar.p) if s.mcnemar else (None, None, None))]
        for s in comparisons
    ]  # fmt: skip
    words = (
        f"Paired bootstrap over {len(one):,} test rows: the same sample of rows for both, "
        "95 % of the differences between low and high."
    )
    return [Section("In short", [BulletList(lines), Table("paired", columns, rows, words)])]


def score_differences(pair: RunPair) -> Section:
    """The section with every final score of both."""
    first, second = pair
    names = list(dict.fromkeys([*first.scores, *second.scores]))
    rows: list[list[CellValue]] = []
    for name in names:
        a, b = first.scores.get(name), second.scores.get(name)
        rows.append([name, a, b, b - a if a is not None and b is not None else None])
    return Section(
        "Scores",
        [Table("scores", ["score", "A", "B", "B minus A"], rows, "Final scores of the best checkpoint of each.")],
    )


def overlaid_curves(pair: RunPair) -> list[Section]:
    """The section with curves of both runs in one chart, for each score that both logged."""
    blocks: list[Block] = []
    known = [{name for row in run.curves for name in row} for run in pair]
    for name in sorted((known[0] & known[1]) - {"step", "epoch", "train/lr"}):
        series = [Series(letter, *curve_points(run.curves, name)) for letter, run in zip("AB", pair, strict=True)]
        if len(blocks) < 8 and any(len(one.xs) > 1 for one in series) and name.startswith(("train/loss", "val/")):
            scale = choose_scale([value for one in series for value in one.ys])
            svg = line_chart(series, title=name, x_label="optimizer steps", y_label=name, y_scale=scale)
            blocks.append(Chart("curve_" + name.replace("/", "_"), svg, "", name))
    return [Section("Curves", blocks)] if blocks else []


def setting_differences(pair: RunPair) -> Section:
    """The section with the settings that differ."""
    one, other = (scalar_settings(run) for run in pair)
    apart = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    rows: list[list[CellValue]] = [[name, to_cell(one.get(name)), to_cell(other.get(name))] for name in apart]
    if not rows:
        return Section("Settings", [Paragraph("Both have the same settings.", "plain")])
    return Section("Settings", [Table("settings", ["setting", "A", "B"], rows, "Settings that differ.")])


def differing_rows(pair: RunPair) -> list[Section]:
    """The section with rows that only one run predicted correctly."""
    one, other, _ = shared_rows(*pair)
    samples: list[Example] = []
    for a, b in zip(one, other, strict=True):
        right = [row.get("prediction") == row.get("label", row.get("reference")) for row in (a, b)]
        if right[0] != right[1] and ("label" in a or "reference" in a) and len(samples) < EXAMPLES_TO_READ:
            tone: Tone = "good" if right[1] else "bad"
            title = f"Row {a['row']}: only {'B' if right[1] else 'A'} is right"
            samples.append(
                Example(title, [*example_input(a), ("A", predicted_text(a)), ("B", predicted_text(b))], tone)
            )
    return [Section("Rows on which they differ", [Examples("apart", samples)])] if samples else []


def example_input(row: Row) -> list[tuple[str, str]]:
    """The input and the true answer of a row, by name."""
    parts = [(name, truncate(str(row[name]))) for name in ("text", "text_pair", "prompt") if row.get(name)]
    return [*parts, ("true", truncate(str(row.get("label", row.get("reference")))))]


def predicted_text(row: Row) -> str:
    """The prediction of a row as text."""
    return truncate(str(row.get("prediction")))


def compare_with_best(runs: Sequence[RunResults], best: int) -> list[Section]:
    """The section that compares each run of a set with its best, on the rows both predicted."""
    rows: list[list[CellValue]] = []
    for at, run in enumerate(runs):
        one, other, _ = shared_rows(runs[best], run) if at != best else ([], [], "")
        for score in compare_rows(one, other, row_scores=run.row_scores, draws=400)[:1] if one else []:
            paired = score.paired
            gain = -paired.gain if score.lower_is_better else paired.gain
            verdict = "cannot be told apart" if not paired.differs else "worse" if gain < 0 else "better"
            rows.append(
                [
                    run.name,
                    score.name,
                    paired.second,
                    paired.gain,
                    paired.low,
                    paired.high,
                    paired.p,
                    score.mcnemar.p if score.mcnemar else None,
                    verdict,
                ]
            )
        if len(rows) >= MAX_COMPARED_RUNS:
            break
    if not rows:
        return []
    columns = ["run", "score", "value", "minus the best's", "low", "high", "p", "McNemar p", "verdict"]
    words = (
        f"Paired bootstrap on the test rows against {runs[best].name}, the best by the followed score; "
        "p values are for one comparison each."
    )
    return [Section("Against the best, row by row", [Table("against_best", columns, rows, words)])]


COMPARISON_DRAWS = 1000
TARGET_KEYS = ("label", "reference", "target")  # what must be the same in both for rows to be the same


@dataclass(frozen=True)
class ScoreComparison:
    """One score of two runs on the same rows.

    Attributes:
        name: Of the score.
        lower_is_better: Whether it is better when it is lower.
        paired: The second run against the first.
        mcnemar: Rows that only one got right; None of scores that are not right or wrong.
    """

    name: str
    lower_is_better: bool
    paired: PairedComparison
    mcnemar: McNemarResult | None


def shared_rows(first: RunResults, second: RunResults) -> tuple[list[Row], list[Row], str]:
    """The rows that both predicted, in the same order, and the reason why they cannot be compared, if any."""
    others = {row["row"]: row for row in second.predictions}
    pairs = [(row, others[row["row"]]) for row in first.predictions if row["row"] in others]
    if not pairs:
        return [], [], "they have no predictions of the same rows"
    unlike = sum(any(one.get(name) != other.get(name) for name in TARGET_KEYS) for one, other in pairs)
    if unlike:
        return (
            [],
            [],
            f"{unlike:,} of {len(pairs):,} rows have another right answer in each: they saw different test data",
        )
    note = ""
    if len(pairs) < max(len(first.predictions), len(second.predictions)):
        note = f"only the {len(pairs):,} rows that both predicted are compared"
    return [one for one, _ in pairs], [other for _, other in pairs], note


def compare_rows(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    row_scores: Callable[[Sequence[Row]], dict[str, RowScore]] = scores_of_predictions,
    draws: int = COMPARISON_DRAWS,
) -> list[ScoreComparison]:
    """The comparison of every score that both runs allow.

    Args:
        first: Predictions of one run.
        second: Of the other, for the same rows in the same order.
        row_scores: How the task scores predictions.
        draws: Of the bootstrap.
    """
    ones, others = row_scores(first), row_scores(second)
    return [compare_score(name, ones[name], others[name], draws) for name in ones if name in others]


def compare_score(name: str, one: RowScore, other: RowScore, draws: int) -> ScoreComparison:
    """The comparison of one score, second run minus first."""
    paired = paired_bootstrap(one, other, draws=draws)
    split = mcnemar_test(one.row_values, other.row_values) if one.binary and other.binary else None
    return ScoreComparison(name, one.lower_is_better, paired, split)


def comparison_sentence(comparison: ScoreComparison, first: str, second: str) -> str:
    """The comparison of one score in words."""
    paired = comparison.paired
    gain = -paired.gain if comparison.lower_is_better else paired.gain
    if not gain:
        return (
            f"{comparison.name}: {first} and {second} are equal, {format_cell(paired.first)}, on"
            f" {format_count(paired.rows, 'row')}."
        )
    ahead, behind = (second, first) if gain > 0 else (first, second)
    best, worst = (paired.second, paired.first) if gain > 0 else (paired.first, paired.second)
    ends = sorted((abs(paired.low), abs(paired.high)))
    words = f"{comparison.name}: {ahead} is better than {behind} ({format_cell(best)} against {format_cell(worst)})"
    if paired.differs:
        words += ", and other rows of the same kind would hardly change that: 95 % of samples give "
        words += f"{format_cell(ends[0])} to {format_cell(ends[1])} (p {format_cell(paired.p)})"
    else:
        words += (
            f", but on {format_count(paired.rows, 'row')} that may be chance: 95 % of samples give a difference of "
        )
        words += f"{format_cell(paired.low)} to {format_cell(paired.high)} (p {format_cell(paired.p)})"
    if paired.effect == paired.effect:
        words += f"; the effect is {effect_size_name(paired.effect)} (d {format_cell(paired.effect)})"
    if comparison.mcnemar is not None:
        split = comparison.mcnemar
        words += f". {second} alone is right on {split.only_second}, {first} alone on {split.only_first} "
        words += f"(McNemar p {format_cell(split.p)})"
    return words + "."


def agreement_sentence(comparison: ScoreComparison) -> str:
    """A sentence on how many rows both got right or both got wrong."""
    if comparison.mcnemar is None:
        return ""
    apart = comparison.mcnemar.only_first + comparison.mcnemar.only_second
    share = format_percent(1 - apart / max(1, comparison.paired.rows))
    return f"They agree on being right or wrong for {share} of the rows."
