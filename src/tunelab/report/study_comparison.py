"""The report on two searches or more: which found the better configuration for the same number of trials.  Pure."""

import math
from collections.abc import Sequence

from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.effects.enough import BestOf, best_of
from tunelab.effects.setting import told
from tunelab.report.blocks import Block, Chart, Document, Grid, Section, Value, Verdicts, Words
from tunelab.report.guarded import guarded
from tunelab.report.next_steps import span_told
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, duration, plain_cell, shown


def study_comparison(studies: Sequence[StudyFacts]) -> Document:
    """The document."""
    parts = (("In short", in_short), ("Best of n", same_budget), ("Best configurations", bests), ("Spaces", spaces))
    sections = [section for title, part in parts for section in guarded(title, part, studies)]
    names = [study.root.name for study in studies]
    return Document(f"Studies {', '.join(names)}", ", ".join(str(study.root) for study in studies), sections)


def comparable(studies: Sequence[StudyFacts]) -> list[StudyFacts]:
    """Those that have something to compare on the score of the first."""
    return [one for one in studies if one.points and one.score == studies[0].score and one.lower == studies[0].lower]


def in_short(studies: Sequence[StudyFacts]) -> Section:
    """Which one is ahead, at its best and for equally many trials."""
    known = comparable(studies)
    lines = [
        Words(f"{one.root.name} follows {one.score}, not {studies[0].score}, or left no score: it is left out.", "warn")
        for one in studies
        if one not in known
    ]
    if len(known) < 2:
        return Section("In short", [Verdicts([*lines, Words("Fewer than two studies can be compared.", "bad")])])
    ordered = sorted(known, key=lambda one: one.points[0].cost)
    first, second = ordered[0], ordered[1]
    gap, noise = second.points[0].cost - first.points[0].cost, worst_noise(known)
    reached = [shown(one.value(one.points[0].cost)) for one in (first, second)]
    text = f"{first.root.name} has the best {first.score}, {reached[0]}; {second.root.name} reaches {reached[1]}"
    if math.isnan(noise):
        lines.append(
            Words(f"{text}. No configuration was run with two seeds, so the gap of {shown(gap)} may be luck.", "warn")
        )
    else:
        sure = gap > 2 * math.sqrt(2) * noise
        lines.append(
            Words(f"{text}: a gap of {gap / noise:.2g} times what seeds differ by.", "good" if sure else "warn")
        )
    least = min(len(one.points) for one in known)
    fair = sorted(known, key=lambda one: best_of(costs(one)).mean[least - 1])
    values = ", ".join(f"{one.root.name} {shown(one.value(best_of(costs(one)).mean[least - 1]))}" for one in fair)
    lines.append(
        Words(
            f"For {counted(least, 'configuration')} each, the expected best is: {values}. "
            "That is the fair comparison of their spaces."
        )
    )
    rows: list[list[Value]] = [
        [one.root.name, one.sampler, len(one.trials), len(one.points), one.value(one.points[0].cost),
         one.value(best_of(costs(one)).mean[least - 1]), None if math.isnan(one.noise) else one.noise,
         duration(sum(t.seconds or 0.0 for t in one.trials))]
        for one in known
    ]  # fmt: skip
    columns = [
        "study",
        "sampler",
        "trials",
        "configurations",
        f"best {studies[0].score}",
        f"expected best of {least}",
        "seed noise",
        "time",
    ]
    return Section("In short", [Verdicts(lines), Grid("studies", columns, rows)])


def worst_noise(studies: Sequence[StudyFacts]) -> float:
    """The largest spread over seeds that is known; nan where none is."""
    return max((one.noise for one in studies if not math.isnan(one.noise)), default=math.nan)


def costs(study: StudyFacts) -> list[float]:
    """Of every configuration."""
    return [point.cost for point in study.points]


def same_budget(studies: Sequence[StudyFacts]) -> list[Section]:
    """Expected best over the number of configurations."""
    known = comparable(studies)
    if len(known) < 2 or max(len(one.points) for one in known) < 3:
        return []
    title = "Expected best of n configurations"
    series = [line_of(one, best_of(costs(one))) for one in known]
    svg = line_chart(series, title=title, x_label="configurations tried", y_label=known[0].score)
    words = "With the middle 90 %. A study that is ahead everywhere has the better space, or the better sampler."
    return [Section("For the same number of trials", [Chart("best_of_n", svg, words, title)])]


def line_of(study: StudyFacts, found: BestOf) -> Series:
    """A study as a line with its band."""
    low, high = [study.value(v) for v in found.low], [study.value(v) for v in found.high]
    ends = [sorted(pair) for pair in zip(low, high, strict=True)]
    return Series(
        study.root.name, list(map(float, found.counts)), [study.value(v) for v in found.mean],
        [a for a, _ in ends], [b for _, b in ends],
    )  # fmt: skip


def bests(studies: Sequence[StudyFacts]) -> list[Section]:
    """The best configuration of each, side by side."""
    known = [one for one in studies if one.points]
    names = list(dict.fromkeys(name for one in known for name in one.points[0].params))
    rows: list[list[Value]] = [[name, *(plain_cell(one.points[0].params.get(name)) for one in known)] for name in names]
    columns = ["setting", *(one.root.name for one in known)]
    return [Section("Best configurations", [Grid("best_configurations", columns, rows)])] if rows else []


def spaces(studies: Sequence[StudyFacts]) -> list[Section]:
    """What each searched."""
    names = list(dict.fromkeys(setting.name for one in studies for setting in one.settings))
    tables = [{setting.name: span_told(setting) for setting in one.settings} for one in studies]
    rows: list[list[Value]] = [[name, *(table.get(name) for table in tables)] for name in names]
    blocks: list[Block] = [Grid("spaces", ["setting", *(one.root.name for one in studies)], rows)]
    fixed = [f"{one.root.name}: {' '.join(one.fixed) or told(None)}" for one in studies]
    return [Section("Spaces", [*blocks, Words("Fixed: " + "; ".join(fixed) + ".", "soft")])]
