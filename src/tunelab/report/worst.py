"""The section on the worst errors: the rows of the test split that the model gets most wrong.  Pure."""

import math
from collections.abc import Sequence

from tunelab.report.answers import quality, sample
from tunelab.report.blocks import Block, Grid, Samples, Section, Value
from tunelab.report.run_facts import Row, RunFacts
from tunelab.report.words import shortened, shown

MOST = 50  # rows of the table
READ = 6  # answers to read


def worst(run: RunFacts) -> list[Section]:
    """The section; none where no predictions were kept."""
    kinds = (labels, labels_each, figures, margins)
    for kind in kinds:
        if grid := kind(run.predictions):
            return [Section("Worst errors", [grid], "Look here for mislabelled records as well as for weak spots.")]
    rows = sorted(
        (row for row in run.predictions if isinstance(row.get("reference"), str)),
        key=lambda row: (quality(row), row["row"]),
    )
    if not rows:
        return []
    before = {row["row"]: row for row in run.base}
    wrong = [row for row in rows if row.get("exact_match") != 1]
    found: list[Block] = [Samples("worst", [sample(row, before.get(row["row"])) for row in wrong[:READ]])]
    found.append(
        Grid(
            "worst_errors",
            ["row", "token_f1", "rougeL", "question", "wanted", "said"],
            [[row["row"], row.get("token_f1"), row.get("rougeL"), *texts(row)] for row in wrong[:MOST]],
            f"{len(wrong):,} of {len(rows):,} answers are not exactly the wanted one; the least alike first.",
        )
    )
    return [Section("Worst errors", found, "Look here for mislabelled records as well as for weak spots.")]


def texts(row: Row) -> list[Value]:
    """Question, wanted and given answer."""
    return [shortened(str(row.get(name, "")), 2000) for name in ("prompt", "reference", "prediction")]


def text_of(row: Row) -> list[Value]:
    """The text of a labelled row, where the file holds it."""
    return [shortened(" | ".join(str(row[name]) for name in ("text", "text_pair") if name in row), 2000) or None]


def labels(rows: Sequence[Row]) -> Grid | None:
    """Wrong labels, the surest first."""
    known = [
        row for row in rows if isinstance(row.get("probabilities"), dict) and not isinstance(row.get("label"), list)
    ]
    wrong = [row for row in known if row.get("prediction") != row.get("label")]
    if not known:
        return None
    wrong.sort(key=lambda row: -row["probabilities"].get(row["prediction"], 0.0))
    found: list[list[Value]] = [
        [row["row"], str(row["label"]), str(row["prediction"]), row["probabilities"].get(row["prediction"]),
         row["probabilities"].get(row["label"]), *text_of(row)]
        for row in wrong[:MOST]
    ]  # fmt: skip
    words = f"{len(wrong):,} of {len(known):,} rows got a wrong label; those it was surest of first."
    return Grid("worst_errors", ["row", "right", "said", "p(said)", "p(right)", "text"], found, words)


def labels_each(rows: Sequence[Row]) -> Grid | None:
    """Rows of several labels, by how unlikely the model held what is right."""
    known = [row for row in rows if isinstance(row.get("probabilities"), dict) and isinstance(row.get("label"), list)]
    if not known:
        return None
    lost = sorted(((surprise(row), row) for row in known), key=lambda pair: (-pair[0], pair[1]["row"]))
    found: list[list[Value]] = [
        [row["row"], ", ".join(map(str, row["label"])), ", ".join(map(str, row["prediction"])), loss, *text_of(row)]
        for loss, row in lost[:MOST]
    ]
    words = "Rows whose labels the model held for least likely, by their loss in nats."
    return Grid("worst_errors", ["row", "right", "said", "loss", "text"], found, words)


def surprise(row: Row) -> float:
    """Binary cross-entropy of a row, summed over labels."""
    wanted = set(row["label"])
    chances = [p if name in wanted else 1 - p for name, p in row["probabilities"].items()]
    return -sum(math.log(max(chance, 1e-12)) for chance in chances)


def figures(rows: Sequence[Row]) -> Grid | None:
    """Numbers that are furthest off; of several, by the largest error."""
    known = []
    for row in rows:
        right, said = row.get("target"), row.get("prediction")
        if isinstance(right, int | float) and isinstance(said, int | float):
            known.append((abs(said - right), row))
        elif isinstance(right, dict) and isinstance(said, dict):
            known.append((max((abs(said[name] - right[name]) for name in right if name in said), default=0.0), row))
    if not known:
        return None
    known.sort(key=lambda pair: (-pair[0], pair[1]["row"]))
    found: list[list[Value]] = [
        [row["row"], plain(row["target"]), plain(row["prediction"]), off, *text_of(row)] for off, row in known[:MOST]
    ]
    words = f"The {min(MOST, len(known))} of {len(known):,} rows that are furthest off."
    return Grid("worst_errors", ["row", "right", "said", "off by", "text"], found, words)


def plain(value: object) -> Value:
    """One number, or several with their names."""
    if isinstance(value, int | float):
        return value
    return (
        ", ".join(f"{name} {shown(inner)}" for name, inner in value.items()) if isinstance(value, dict) else str(value)
    )


def margins(rows: Sequence[Row]) -> Grid | None:
    """Pairs that the model would rather have the other way round."""
    known = sorted((row for row in rows if isinstance(row.get("margin"), int | float)), key=lambda row: row["margin"])
    if not known:
        return None
    names = ["row", "margin", "chosen_reward", "rejected_reward"]
    wrong = sum(row["margin"] <= 0 for row in known)
    words = f"{wrong:,} of {len(known):,} pairs prefer the rejected answer; the largest mistakes first."
    return Grid("worst_errors", names, [[row.get(name) for name in names] for row in known[:MOST]], words)
