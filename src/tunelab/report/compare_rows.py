"""Two runs on the same test rows: each score with its difference, the interval of that and a sentence.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunelab.effects.paired import McNemar, Paired, mcnemar, paired_bootstrap, size_of
from tunelab.report.row_scores import RowScore, row_scores
from tunelab.report.run_facts import Row, RunFacts
from tunelab.report.words import counted, percent, shown

DRAWS = 1000
RIGHT = ("label", "reference", "target")  # what must be the same in both for rows to be the same


@dataclass(frozen=True)
class Compared:
    """One score of both.

    Attributes:
        name: Of the score.
        lower: Whether it is better when it is lower.
        paired: The second run against the first.
        split: Rows that only one got right; None of scores that are not right or wrong.
    """

    name: str
    lower: bool
    paired: Paired
    split: McNemar | None


def shared(first: RunFacts, second: RunFacts) -> tuple[list[Row], list[Row], str]:
    """The rows that both predicted, in the same order, and what stands against comparing them."""
    others = {row["row"]: row for row in second.predictions}
    pairs = [(row, others[row["row"]]) for row in first.predictions if row["row"] in others]
    if not pairs:
        return [], [], "they have no predictions of the same rows"
    unlike = sum(any(one.get(name) != other.get(name) for name in RIGHT) for one, other in pairs)
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


def compared(first: Sequence[Row], second: Sequence[Row], *, draws: int = DRAWS) -> list[Compared]:
    """Every score that both allow."""
    ones, others = row_scores(first), {score.name: score for score in row_scores(second)}
    return [against(one, others[one.name], len(first), draws) for one in ones if one.name in others]


def against(one: RowScore, other: RowScore, rows: int, draws: int) -> Compared:
    """One score."""
    differences = other.each - one.each if len(one.each) else np.zeros(0)
    found = paired_bootstrap(rows, one.over, other.over, differences, draws=draws)
    split = mcnemar(one.each, other.each) if one.binary and other.binary else None
    return Compared(one.name, one.lower, found, split)


def sentence(found: Compared, first: str, second: str) -> str:
    """The difference in plain words."""
    paired = found.paired
    gain = -paired.gain if found.lower else paired.gain
    if not gain:
        return f"{found.name}: {first} and {second} are equal, {shown(paired.first)}, on {counted(paired.rows, 'row')}."
    ahead, behind = (second, first) if gain > 0 else (first, second)
    best, worst = (paired.second, paired.first) if gain > 0 else (paired.first, paired.second)
    ends = sorted((abs(paired.low), abs(paired.high)))
    words = f"{found.name}: {ahead} is better than {behind} ({shown(best)} against {shown(worst)})"
    if paired.differs:
        words += ", and other rows of the same kind would hardly change that: 95 % of samples give "
        words += f"{shown(ends[0])} to {shown(ends[1])} (p {shown(paired.p)})"
    else:
        words += f", but on {counted(paired.rows, 'row')} that may be chance: 95 % of samples give a difference of "
        words += f"{shown(paired.low)} to {shown(paired.high)} (p {shown(paired.p)})"
    if paired.effect == paired.effect:
        words += f"; the effect is {size_of(paired.effect)} (d {shown(paired.effect)})"
    if found.split is not None:
        split = found.split
        words += f". {second} alone is right on {split.only_second}, {first} alone on {split.only_first} "
        words += f"(McNemar p {shown(split.p)})"
    return words + "."


def share_of_rows(found: Compared) -> str:
    """Where both agree."""
    if found.split is None:
        return ""
    apart = found.split.only_first + found.split.only_second
    return f"They agree on being right or wrong for {percent(1 - apart / max(1, found.paired.rows))} of the rows."
