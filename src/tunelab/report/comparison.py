"""The report on two runs, or on the runs of a set against its best.  Pure: facts in, a document out."""

import math
from collections.abc import Sequence

from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.report.blocks import Block, Chart, Document, Grid, Sample, Samples, Section, Tone, Value, Verdicts, Words
from tunelab.report.compare_rows import compared, sentence, share_of_rows, shared
from tunelab.report.curves import points, scale_of
from tunelab.report.guarded import guarded
from tunelab.report.run_facts import Row, RunFacts
from tunelab.report.set_facts import plain_settings
from tunelab.report.words import plain_cell, shortened

READ = 8  # rows on which two runs differ, to read
MOST = 20  # runs of a set that are compared with its best

Two = tuple[RunFacts, RunFacts]


def comparison(first: RunFacts, second: RunFacts) -> Document:
    """The document on two runs."""
    parts = (
        ("In short", in_short),
        ("Scores", both_scores),
        ("Curves", both_curves),
        ("Settings", settings),
        ("Rows", rows_apart),
    )
    pair = (first, second)
    sections = [section for title, part in parts for section in guarded(title, part, pair)]
    return Document(f"{first.name} against {second.name}", f"{first.root} is A, {second.root} is B", sections)


def in_short(pair: Two) -> list[Section]:
    """Plain sentences, and the numbers behind them."""
    one, other, note = shared(*pair)
    if not one:
        told = f"The two cannot be compared row by row: {note}. Their final scores stand below."
        return [Section("In short", [Words(told, "warn")])]
    found = compared(one, other)
    lines = [Words(sentence(score, "A", "B"), "good" if score.paired.differs else "plain") for score in found]
    lines += [Words(f"{text}") for score in found[:1] if (text := share_of_rows(score))]
    lines += [Words(f"Mind that {note}.", "warn")] if note else []
    lines.append(
        Words(
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
    rows: list[list[Value]] = [
        [s.name, s.paired.first, s.paired.second, s.paired.gain, s.paired.low, s.paired.high, s.paired.p,
         None if math.isnan(s.paired.effect) else s.paired.effect,
         *((s.split.only_first, s.split.only_second, s.split.p) if s.split else (None, None, None))]
        for s in found
    ]  # fmt: skip
    words = (
        f"Paired bootstrap over {len(one):,} test rows: the same sample of rows for both, "
        "95 % of the differences between low and high."
    )
    return [Section("In short", [Verdicts(lines), Grid("paired", columns, rows, words)])]


def both_scores(pair: Two) -> Section:
    """Every final score of both."""
    first, second = pair
    names = list(dict.fromkeys([*first.scores, *second.scores]))
    rows: list[list[Value]] = []
    for name in names:
        a, b = first.scores.get(name), second.scores.get(name)
        rows.append([name, a, b, b - a if a is not None and b is not None else None])
    return Section(
        "Scores",
        [Grid("scores", ["score", "A", "B", "B minus A"], rows, "Final scores of the best checkpoint of each.")],
    )


def both_curves(pair: Two) -> list[Section]:
    """Curves of both in one drawing, for each score that both logged."""
    blocks: list[Block] = []
    known = [{name for row in run.curves for name in row} for run in pair]
    for name in sorted((known[0] & known[1]) - {"step", "epoch", "train/lr"}):
        series = [Series(letter, *points(run.curves, name)) for letter, run in zip("AB", pair, strict=True)]
        if len(blocks) < 8 and any(len(one.xs) > 1 for one in series) and name.startswith(("train/loss", "val/")):
            scale = scale_of([value for one in series for value in one.ys])
            svg = line_chart(series, title=name, x_label="optimizer steps", y_label=name, y_scale=scale)
            blocks.append(Chart("curve_" + name.replace("/", "_"), svg, "", name))
    return [Section("Curves", blocks)] if blocks else []


def settings(pair: Two) -> Section:
    """What differs between their settings."""
    one, other = (plain_settings(run) for run in pair)
    apart = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    rows: list[list[Value]] = [[name, plain_cell(one.get(name)), plain_cell(other.get(name))] for name in apart]
    if not rows:
        return Section("Settings", [Words("Both have the same settings.", "plain")])
    return Section("Settings", [Grid("settings", ["setting", "A", "B"], rows, "Settings that differ.")])


def rows_apart(pair: Two) -> list[Section]:
    """Rows that only one got right, to read."""
    one, other, _ = shared(*pair)
    samples: list[Sample] = []
    for a, b in zip(one, other, strict=True):
        right = [row.get("prediction") == row.get("label", row.get("reference")) for row in (a, b)]
        if right[0] != right[1] and ("label" in a or "reference" in a) and len(samples) < READ:
            tone: Tone = "good" if right[1] else "bad"
            title = f"Row {a['row']}: only {'B' if right[1] else 'A'} is right"
            samples.append(Sample(title, [*asked(a), ("A", said(a)), ("B", said(b))], tone))
    return [Section("Rows on which they differ", [Samples("apart", samples)])] if samples else []


def asked(row: Row) -> list[tuple[str, str]]:
    """What was asked and what is right."""
    found = [(name, shortened(str(row[name]))) for name in ("text", "text_pair", "prompt") if row.get(name)]
    return [*found, ("right", shortened(str(row.get("label", row.get("reference")))))]


def said(row: Row) -> str:
    """What was predicted."""
    return shortened(str(row.get("prediction")))


def against_best(runs: Sequence[RunFacts], best: int) -> list[Section]:
    """Each run of a set against its best, on the rows both predicted."""
    rows: list[list[Value]] = []
    for at, run in enumerate(runs):
        one, other, _ = shared(runs[best], run) if at != best else ([], [], "")
        for score in compared(one, other, draws=400)[:1] if one else []:
            paired = score.paired
            gain = -paired.gain if score.lower else paired.gain
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
                    score.split.p if score.split else None,
                    verdict,
                ]
            )
        if len(rows) >= MOST:
            break
    if not rows:
        return []
    columns = ["run", "score", "value", "minus the best's", "low", "high", "p", "McNemar p", "verdict"]
    words = (
        f"Paired bootstrap on the test rows against {runs[best].name}, the best by the followed score; "
        "p values are for one comparison each."
    )
    return [Section("Against the best, row by row", [Grid("against_best", columns, rows, words)])]
