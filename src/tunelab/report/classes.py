"""The section on classes: what is taken for what, and how well each is found.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.heat import heat_map
from tunelab.report.blocks import Block, Chart, Grid, Section, Value, Verdicts, Words
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import counted, percent

MOST = 16  # classes that a drawing has room for
PAIRS = 12  # confusions listed
RARE = 20  # rows of a class below which its scores are mostly luck


def classes(run: RunFacts) -> list[Section]:
    """The section; none where no classes were told apart."""
    table = run.tables.get("test")
    if not isinstance(table, Mapping) or not table.get("per_class"):
        return []
    found = [row for row in table["per_class"] if isinstance(row, Mapping) and "label" in row]
    labels, counts = list(map(str, table.get("labels", ()))), table.get("confusion") or []
    blocks: list[Block] = [Verdicts(verdicts(found))]
    single = bool(counts) and len(counts) == len(labels) and all(len(row) == len(labels) for row in counts)
    if single and isinstance(counts[0][0], int | float):
        blocks += confusion(labels, counts)
    blocks += [per_class_chart(found), per_class(found)]
    return [Section("Classes", blocks, "On the test split, at the best checkpoint.")]


def verdicts(found: Sequence[Mapping[str, Any]]) -> list[Words]:
    """The weakest classes, and those too rare to say anything of."""
    known = [row for row in found if row["support"]]
    weak = sorted(known, key=lambda row: row["f1"])[:3]
    lines = []
    if known:
        named = ", ".join(f"{row['label']} ({row['f1']:.2f}, {row['support']} rows)" for row in weak)
        lines.append(Words(f"Weakest by F1: {named}."))
    never = [str(row["label"]) for row in known if not row["recall"]]
    if never:
        lines.append(Words(f"Never found: {', '.join(never[:8])}{' ...' if len(never) > 8 else ''}.", "warn"))
    rare = sum(0 < row["support"] < RARE for row in found)
    if rare:
        lines.append(
            Words(
                f"{rare} of {len(found)} classes have fewer than {RARE} test rows: their scores are mostly luck.",
                "warn",
            )
        )
    return lines


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> list[Block]:
    """The matrix, of the most confused classes where there are many, and the pairs that are mixed up most."""
    pairs = [
        (counts[real][guess], real, guess)
        for real in range(len(labels))
        for guess in range(len(labels))
        if real != guess and counts[real][guess]
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    shown = list(range(len(labels)))
    words = "Rows are what is right, columns what was said; each row adds up to 1. Off the diagonal are the mistakes."
    if len(labels) > MOST:
        wrong = [sum(n for n, real, guess in pairs if at in (real, guess)) for at in shown]
        shown = sorted(sorted(shown, key=lambda at: -wrong[at])[:MOST])
        words = f"The {MOST} of {len(labels)} classes with most mistakes. {words}"
    shares = [[counts[real][guess] / max(1, sum(counts[real])) for guess in shown] for real in shown]
    names = [labels[at] for at in shown]
    svg = heat_map(names, names, shares, title="Confusion", x_label="said", y_label="right")
    rows: list[list[Value]] = [
        [labels[real], labels[guess], n, n / max(1, sum(counts[real]))] for n, real, guess in pairs
    ]
    said = "No row was given a wrong label."
    for n, real, guess in pairs[:1]:
        share = percent(n / max(1, sum(counts[real])))
        said = f"Most often, {labels[real]} is taken for {labels[guess]} ({counted(n, 'row')}, {share})."
    whole_rows: list[list[Value]] = [[labels[at], *counts[at]] for at in range(len(labels))]
    whole = Grid("confusion", ["right", *labels], whole_rows, "Counts.")
    mixed = Grid("confused_pairs", ["right", "said", "rows", "share of right"], rows, said, most=PAIRS)
    return [Chart("confusion", svg, words, "Confusion matrix"), mixed, *([whole] if len(labels) <= MOST else [])]


def per_class_chart(found: Sequence[Mapping[str, Any]]) -> Chart:
    """F1 of each class, the weakest where there are many."""
    shown = sorted(found, key=lambda row: row["f1"])[:MOST]
    title = "F1 by class" + (f", the {MOST} weakest of {len(found)}" if len(found) > MOST else "")
    svg = bar_chart(
        [str(row["label"]) for row in shown],
        [Bars("", [row["f1"] for row in shown])],
        title=title,
        value_label="F1",
        level=True,
    )
    return Chart("f1_by_class", svg, "", title)


def per_class(found: Sequence[Mapping[str, Any]]) -> Grid:
    """Every class."""
    names = ["precision", "recall", "f1", "support"]
    return Grid(
        "per_class", ["label", *names], [[str(row["label"]), *(row.get(name) for name in names)] for row in found]
    )
