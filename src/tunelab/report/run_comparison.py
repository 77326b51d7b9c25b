"""The report on two runs over the same test rows, and the section that compares runs with the best.  Pure."""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.analysis.row_scores import RowScore, scores_of_predictions
from tunelab.analysis.statistics import (
    McNemarResult,
    PairedComparison,
    effect_size_name,
    mcnemar_test,
    paired_bootstrap,
)
from tunelab.language.score_names import ScoreName, score_label
from tunelab.language.translation import message, messages, translate
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
    Fold,
    Paragraph,
    Section,
    Table,
    Tone,
    Verdict,
    build_section,
)
from tunelab.report.example_sections import marked_answer
from tunelab.report.formatting import format_cell, format_count, format_percent, join_names, to_cell, truncate
from tunelab.report.next_run import other_seeds
from tunelab.report.run_reader import RunResults, is_study_folder
from tunelab.report.study_reader import read_study_results, scalar_settings
from tunelab.report.training_sections import choose_scale, curve_points
from tunelab.runs.atomic_files import Row
from tunelab.runs.entry_script import script_option
from tunelab.tasks.metrics.directions import metric_direction

EXAMPLES_TO_READ = 8  # rows on which two runs differ, to read
MAX_COMPARED_RUNS = 20  # runs of a set that are compared with its best

RunPair = tuple[RunResults, RunResults]


def build_run_comparison(first: RunResults, second: RunResults) -> Document:
    """The report on two runs."""
    parts = (
        ("Verdict", comparison_summary),
        ("Settings", setting_differences),
        ("Curves", overlaid_curves),
        ("Scores", score_differences),
        ("Rows", differing_rows),
    )
    pair = (first, second)
    sections = [section for title, part in parts for section in build_section(title, part, pair)]
    names = pair_names(pair)
    title = translate("{names} against {other}", names=names[0], other=names[1])
    return Document(title, translate("A is {root}, B is {other}", root=first.root, other=second.root), sections)


def pair_names(pair: RunPair) -> tuple[str, str]:
    """The letters of both runs with what tells them apart: the end of their paths that differs."""
    one, other = (run.root.absolute().parts for run in pair)
    length = next((n for n in range(1, min(len(one), len(other))) if one[-n] != other[-n]), 1)
    tails = ["/".join(parts[-length:]) for parts in (one, other)]
    trials = all(tail.isdigit() for tail in tails) and all(is_study_folder(run.root.absolute().parent) for run in pair)
    first, second = (translate("trial {number}", number=tail) if trials else tail for tail in tails)
    return f"A ({first})", f"B ({second})"


def comparison_summary(pair: RunPair) -> list[Section]:
    """The section with the comparison in sentences and numbers, over test rows or else by validation scores."""
    one, other, note = shared_rows(*pair)
    if not one:
        return [Section("Verdict", [validation_verdict(pair), BulletList(unknown_lines(pair, note))])]
    comparisons = compare_rows(one, other, row_scores=pair[0].row_scores)
    names = pair_names(pair)
    first, *rest = [
        (comparison_sentence(score, *names), "good" if score.paired.differs else "plain") for score in comparisons
    ]
    lines = [Paragraph(text) for text, _ in rest]
    lines += [Paragraph(text) for score in comparisons[:1] if (text := agreement_sentence(score))]
    lines += [Paragraph(translate("Mind that {note}.", note=note), "warn")] if note else []
    lines.append(
        Paragraph(translate("This is about these two trainings on rows like these. {pair}", pair=seed_sentence(pair)))
    )
    columns = [
        *messages("score"),
        *names,
        *messages("B minus A", "low", "high", "p", "effect d", "only A right", "only B right", "McNemar p"),
    ]
    rows: list[list[CellValue]] = [
        [ScoreName(s.name), s.paired.first, s.paired.second, s.paired.gain, s.paired.low, s.paired.high, s.paired.p,
         None if math.isnan(s.paired.effect) else s.paired.effect,
         *((s.mcnemar.only_first, s.mcnemar.only_second, s.mcnemar.p) if s.mcnemar else (None, None, None))]
        for s in comparisons
    ]  # fmt: skip
    words = translate(
        "Paired bootstrap over {count:,} test [row|rows]: the same sample of rows for both, 95 % "
        "of the differences between low and high.",
        count=len(one),
    )
    verdict = Verdict(first[0], "good" if first[1] == "good" else "plain")
    return [Section("Verdict", [verdict, BulletList(lines), Table("paired", columns, rows, words)])]


def validation_verdict(pair: RunPair) -> Verdict:
    """Which of two runs without shared test rows is better on validation, by how much, or why nobody can say."""
    names = pair_names(pair)
    score = shared_validation_score(pair)
    if not score:
        return Verdict(translate("The two cannot be compared: they have no validation score in common."), "warn")
    if not same_validation_data(pair):
        return Verdict(
            translate("The two cannot be compared: their {score} is of different validation data.", score=score), "warn"
        )
    first, second = (validation_value(run, score) for run in pair)
    if first == second:
        return Verdict(
            translate(
                "{score}: {names} and {other} are equal, {first}.",
                score=score,
                names=names[0],
                other=names[1],
                first=format_cell(first),
            ),
            "plain",
        )
    lower = pair[0].lower_is_better if score == pair[0].monitor else metric_direction(score) == "min"
    ahead, behind = (0, 1) if (first < second) == lower else (1, 0)
    values = (first, second)
    text = translate(
        "{score}: {names} is better than {other}, {values} against",
        score=score,
        names=names[ahead],
        other=names[behind],
        values=format_cell(values[ahead]),
    )
    text += translate(
        " {values} (by {first})", values=format_cell(values[behind]), first=format_cell(abs(first - second))
    )
    noise = shared_seed_noise(pair)
    if math.isnan(noise):
        return Verdict(translate("{words}. Not proven: one validation score each.", words=text), "warn")
    clear = abs(first - second) > 2 * math.sqrt(2) * noise
    ratio = (
        translate("{first:.2g} times what two seeds differ by", first=abs(first - second) / noise)
        if noise
        else translate("seeds do not differ")
    )
    return Verdict(f"{text}, {ratio}.", "good" if clear else "warn")


def unknown_lines(pair: RunPair, note: str) -> list[Paragraph]:
    """What a comparison by validation scores does not know."""
    tested = [name for name, run in zip(pair_names(pair), pair, strict=True) if run.predictions]
    if len(tested) == 2:
        lines = [Paragraph(translate("Test rows are not compared: {note}.", note=note), "warn")]
    elif tested:
        lines = [
            Paragraph(
                translate("Only {tested} was evaluated on test rows, so these are not compared.", tested=tested[0])
            )
        ]
    else:
        text = translate(
            "Neither was evaluated on test rows, as trials of a search are not: no interval over rows is known."
        )
        lines = [Paragraph(text)]
    return [*lines, Paragraph(seed_sentence(pair))]


def seed_sentence(pair: RunPair) -> str:
    """What is known of the seeds' share in the difference."""
    noise = shared_seed_noise(pair)
    if not math.isnan(noise):
        return translate(
            "Two seeds of one configuration of this study differ by {noise} (standard deviation).",
            noise=format_cell(noise),
        )
    study = shared_study(pair)
    command = (
        f"tunelab confirm {shlex.quote(str(study))}{script_option(read_study_results(study).script)}"
        if study
        else translate("the same command with seed={seeds} for each", seeds=", ".join(map(str, other_seeds(*pair))))
    )
    return translate("Seed variance unknown: each configuration ran once. To know it: {command}.", command=command)


def shared_study(pair: RunPair) -> Path | None:
    """The study that both are trials of; None where they are not."""
    one, other = (run.root.absolute().parent for run in pair)
    return pair[0].root.parent if one == other and is_study_folder(one) else None


def shared_seed_noise(pair: RunPair) -> float:
    """The standard deviation over seeds in the study of both; nan where it is unknown."""
    study = shared_study(pair)
    return read_study_results(study).seed_noise if study else math.nan


def shared_validation_score(pair: RunPair) -> str:
    """The validation score that both have: the monitored one, else the first headline score; empty without any."""
    heads = [f"val/{name}" for name in pair[0].description.headline_scores]
    monitors = [pair[0].monitor] if pair[0].monitor == pair[1].monitor and pair[0].monitor else []
    names = [*monitors, *heads, "val/loss"]
    return next((n for n in names if all(math.isfinite(validation_value(run, n)) for run in pair)), "")


def validation_value(run: RunResults, score: str) -> float:
    """A validation score at the best checkpoint; nan where the run has none."""
    value = run.best.get("value") if score == run.monitor else run.scores.get(score)
    return float(value) if isinstance(value, int | float) else math.nan


def same_validation_data(pair: RunPair) -> bool:
    """Whether nothing that is recorded says that both were validated on different files."""
    files = [(run.manifest.get("data") or {}).get("files") or {} for run in pair]
    named = [(run.config.get("data") or {}).get("validation") for run in pair]
    hashes = [held.get(str(name)) for held, name in zip(files, named, strict=True)]
    if all(hashes):
        return bool(hashes[0] == hashes[1])
    return not all(files) or bool({*files[0].values()} & {*files[1].values()})


def score_differences(pair: RunPair) -> Section:
    """The section with the final scores that both have, and the names of those that only one has."""
    first, second = pair
    names = pair_names(pair)
    both = [name for name in first.scores if name in second.scores]
    both.sort(key=lambda name: (SPLIT_RANK.get(name.partition("/")[0], len(SPLIT_RANK)), first.scores[name] is None))
    rows: list[list[CellValue]] = [
        [ScoreName(name), first.scores[name], second.scores[name], second.scores[name] - first.scores[name]]
        for name in both
    ]
    blocks: list[Block] = []
    if rows:
        words = translate("Final scores of the best checkpoint of each.")
        blocks.append(Table("scores", [*messages("score"), *names, *messages("B minus A")], rows, words))
    for name, run, other in zip(names, pair, reversed(pair), strict=True):
        alone = [score for score in run.scores if score not in other.scores]
        if alone:
            blocks.append(
                Paragraph(
                    translate("Only {name} has {names}.", name=name, names=join_names([*map(score_label, alone)], 8)),
                    "soft",
                )
            )
    return Section("Scores", blocks or [Paragraph(translate("Neither run left final scores."), "soft")])


SPLIT_RANK = {name: place for place, name in enumerate(("test", "val", "base", "last", "train"))}


def overlaid_curves(pair: RunPair) -> list[Section]:
    """The section with curves of both runs in one chart, for each score that both logged."""
    blocks: list[Block] = []
    known = [{name for row in run.curves for name in row} for run in pair]
    for name in sorted((known[0] & known[1]) - {"step", "epoch", "train/lr"}):
        names = pair_names(pair)
        series = [Series(label, *curve_points(run.curves, name)) for label, run in zip(names, pair, strict=True)]
        if len(blocks) < 8 and any(len(one.xs) > 1 for one in series) and name.startswith(("train/loss", "val/")):
            scale = choose_scale([value for one in series for value in one.ys])
            svg = line_chart(
                series, title=score_label(name), x_label=translate("optimizer steps"), y_label="", y_scale=scale
            )
            blocks.append(Chart("curve_" + name.replace("/", "_"), svg, "", score_label(name)))
    heads = dict.fromkeys((shared_validation_score(pair), "val/loss", "train/loss"))
    charts = [f"curve_{name.replace('/', '_')}" for name in heads]
    large = [block for name in charts for block in blocks if isinstance(block, Chart) and block.name == name][:2]
    rest = [block for block in blocks if block not in large]
    named = ", ".join(block.title for block in rest if isinstance(block, Chart))
    fold: list[Block] = (
        [Fold(translate("{curves}: {names}", curves=format_count(len(rest), "other curve"), names=named), rest)]
        if rest
        else []
    )
    return [Section("Curves", [*large, *fold])] if blocks else []


def setting_differences(pair: RunPair) -> Section:
    """The section with the settings that differ."""
    one, other = (scalar_settings(run) for run in pair)
    names = pair_names(pair)
    for name, settings in zip(names, (one, other), strict=True):
        if not settings:
            text = translate("{name} left no settings, so what differs is not known.", name=name)
            return Section("Settings", [Paragraph(text, "soft")])
    apart = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    # optimizer.lr follows lr, so it says nothing new
    repeated = {name for name in apart if "." in name and (short := name.rpartition(".")[2]) in apart
                and (one.get(name), other.get(name)) == (one.get(short), other.get(short))}  # fmt: skip
    rows: list[list[CellValue]] = [
        [name, to_cell(one.get(name)), to_cell(other.get(name))] for name in apart if name not in repeated
    ]
    if not rows:
        return Section("Settings", [Paragraph(translate("Both have the same settings."), "plain")])
    shared = [row for row in rows if str(row[0]) in one and str(row[0]) in other]
    alone = [row for row in rows if row not in shared]
    columns = [*messages("setting"), *names]
    blocks: list[Block] = [Table("settings", columns, shared, translate("Settings that differ."))] if shared else []
    if alone:
        title = translate("{count} [setting|settings] that only one of them has", count=len(alone))
        blocks.append(Fold(title, [Table("settings_of_one", columns, alone)]))
    return Section("Settings", blocks)


def differing_rows(pair: RunPair) -> list[Section]:
    """The section with rows that only one run predicted correctly."""
    one, other, _ = shared_rows(*pair)
    samples: list[Example] = []
    for a, b in zip(one, other, strict=True):
        right = [row.get("prediction") == row.get("label", row.get("reference")) for row in (a, b)]
        if right[0] != right[1] and ("label" in a or "reference" in a) and len(samples) < EXAMPLES_TO_READ:
            tone: Tone = "good" if right[1] else "bad"
            title = translate("Row {row}: only {value} is right", row=a["row"], value="B" if right[1] else "A")
            truth = str(a.get("label", a.get("reference")))
            answers = [marked_answer(name, row, truth) for name, row in zip(pair_names(pair), (a, b), strict=True)]
            samples.append(Example(title, example_input(a), tone, answers))
    return [Section("Rows on which they differ", [Examples("apart", samples)])] if samples else []


def example_input(row: Row) -> list[tuple[str, str]]:
    """The input and the true answer of a row, by name."""
    parts = [(name, truncate(str(row[name]))) for name in ("text", "text_pair", "prompt") if row.get(name)]
    return [*parts, (translate("true"), truncate(str(row.get("label", row.get("reference")))))]


def compare_with_best(runs: Sequence[RunResults], best: int) -> list[Section]:
    """The section that compares each run of a set with its best, on the rows both predicted."""
    rows: list[list[CellValue]] = []
    for at, run in enumerate(runs):
        one, other, _ = shared_rows(runs[best], run) if at != best else ([], [], "")
        for score in compare_rows(one, other, row_scores=run.row_scores, draws=400)[:1] if one else []:
            paired = score.paired
            gain = -paired.gain if score.lower_is_better else paired.gain
            verdict = message("cannot be told apart" if not paired.differs else "worse" if gain < 0 else "better")
            rows.append(
                [
                    run.name,
                    ScoreName(score.name),
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
    columns = messages("run", "score", "value", "minus the best's", "low", "high", "p", "McNemar p", "verdict")
    words = translate(
        "Paired bootstrap on the test rows against {name}, the best by the followed score; p "
        "values are for one comparison each.",
        name=runs[best].name,
    )
    return [Section(message("Against the best, row by row"), [Table("against_best", columns, rows, words)])]


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
        return [], [], translate("they have no predictions of the same rows")
    unlike = sum(any(one.get(name) != other.get(name) for name in TARGET_KEYS) for one, other in pairs)
    if unlike:
        return (
            [],
            [],
            translate(
                "{unlike:,} of {count:,} [row has|rows have] another right answer in each: they saw different test "
                "data",
                unlike=unlike,
                count=len(pairs),
            ),
        )
    note = ""
    if len(pairs) < max(len(first.predictions), len(second.predictions)):
        note = translate("only {count:,} [row|rows], those that both predicted, can be compared", count=len(pairs))
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
        return translate(
            "{name}: {first} and {second} are equal, {value}, on {rows}.",
            name=comparison.name,
            first=first,
            second=second,
            value=format_cell(paired.first),
            rows=format_count(paired.rows, "row"),
        )
    ahead, behind = (second, first) if gain > 0 else (first, second)
    best, worst = (paired.second, paired.first) if gain > 0 else (paired.first, paired.second)
    ends = sorted((abs(paired.low), abs(paired.high)))
    words = translate(
        "{name}: {ahead} is better than {behind} ({best} against {worst})",
        name=comparison.name,
        ahead=ahead,
        behind=behind,
        best=format_cell(best),
        worst=format_cell(worst),
    )
    if paired.differs:
        words += translate(", and other rows of the same kind would hardly change that: 95 % of samples give ")
        words += translate(
            "{low} to {high} (p {p})", low=format_cell(ends[0]), high=format_cell(ends[1]), p=format_cell(paired.p)
        )
    else:
        words += translate(
            ", but on {rows} that may be chance: 95 % of samples give a difference of ",
            rows=format_count(paired.rows, "row"),
        )
        words += translate(
            "{low} to {high} (p {p})",
            low=format_cell(paired.low),
            high=format_cell(paired.high),
            p=format_cell(paired.p),
        )
    if paired.effect == paired.effect:
        words += translate(
            "; the effect is {effect} (d {d})",
            effect=effect_size_name(paired.effect),
            d=format_cell(paired.effect),
        )
    if comparison.mcnemar is not None:
        split = comparison.mcnemar
        words += translate(
            ". {second} alone is right on {only_second}, {first} alone on {only_first} ",
            second=second,
            only_second=split.only_second,
            first=first,
            only_first=split.only_first,
        )
        words += translate("(McNemar p {p})", p=format_cell(split.p))
    return words + "."


def agreement_sentence(comparison: ScoreComparison) -> str:
    """A sentence on how many rows both got right or both got wrong."""
    if comparison.mcnemar is None:
        return ""
    apart = comparison.mcnemar.only_first + comparison.mcnemar.only_second
    share = format_percent(1 - apart / max(1, comparison.paired.rows))
    return translate("They agree on being right or wrong for {share} of the rows.", share=share)
