"""The report on several studies: the best configuration each reaches for the same number of trials.  Pure."""

import math
from collections.abc import Sequence

from tunelab.analysis.configurations import format_value
from tunelab.analysis.number_format import format_duration
from tunelab.analysis.statistics import ExpectedBest, expected_best
from tunelab.language.translation import message, messages, translate
from tunelab.report.charts.axes import Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import (
    Block,
    BulletList,
    CellValue,
    Chart,
    Document,
    Paragraph,
    Section,
    Table,
    build_section,
)
from tunelab.report.formatting import format_cell, format_count, to_cell
from tunelab.report.study_reader import StudyResults
from tunelab.report.study_report import format_setting_range


def build_study_comparison(studies: Sequence[StudyResults]) -> Document:
    """The report on several studies."""
    parts = (
        ("Summary", study_summary),
        (message("Best of n"), expected_best_section),
        (message("Best configurations"), best_configurations_section),
        (message("Spaces"), spaces_section),
    )
    sections = [section for title, part in parts for section in build_section(title, part, studies)]
    names = [study.root.name for study in studies]
    return Document(
        translate("Studies {names}", names=", ".join(names)), ", ".join(str(study.root) for study in studies), sections
    )


def comparable_studies(studies: Sequence[StudyResults]) -> list[StudyResults]:
    """The studies that have the score of the first one."""
    return [
        one
        for one in studies
        if one.configurations and one.score == studies[0].score and one.lower_is_better == studies[0].lower_is_better
    ]


def study_summary(studies: Sequence[StudyResults]) -> Section:
    """The section on which study is better, at its best and for equally many trials."""
    known = comparable_studies(studies)
    lines = [
        Paragraph(
            translate(
                "{name} follows {score}, not {followed}, or left no score: it is left out.",
                name=one.root.name,
                score=one.score,
                followed=studies[0].score,
            ),
            "warn",
        )
        for one in studies
        if one not in known
    ]
    if len(known) < 2:
        return Section(
            "Summary", [BulletList([*lines, Paragraph(translate("Fewer than two studies can be compared."), "bad")])]
        )
    ordered = sorted(known, key=lambda one: one.configurations[0].cost)
    first, second = ordered[0], ordered[1]
    gap, noise = second.configurations[0].cost - first.configurations[0].cost, largest_seed_noise(known)
    reached = [format_cell(one.cost_to_score(one.configurations[0].cost)) for one in (first, second)]
    text = translate(
        "{name} has the best {score}, {reached}; {other} reaches {other_reached}",
        name=first.root.name,
        score=first.score,
        reached=reached[0],
        other=second.root.name,
        other_reached=reached[1],
    )
    if math.isnan(noise):
        lines.append(
            Paragraph(
                translate(
                    "{words}. Seed variance unknown, so the gap of {gap} is not proven.",
                    words=text,
                    gap=format_cell(gap),
                ),
                "warn",
            )
        )
    else:
        sure = gap > 2 * math.sqrt(2) * noise
        lines.append(
            Paragraph(
                translate("{words}: a gap of {gap:.2g} times what seeds differ by.", words=text, gap=gap / noise),
                "good" if sure else "warn",
            )
        )
    least = min(len(one.configurations) for one in known)
    fair = sorted(known, key=lambda one: expected_best(configuration_costs(one)).mean[least - 1])
    values = ", ".join(
        f"{one.root.name} {format_cell(one.cost_to_score(expected_best(configuration_costs(one)).mean[least - 1]))}"
        for one in fair
    )
    lines.append(
        Paragraph(
            translate(
                "For {configurations} each, the expected best is: {values}. That is the fair "
                "comparison of their spaces.",
                configurations=format_count(least, "configuration"),
                values=values,
            )
        )
    )
    rows: list[list[CellValue]] = [
        [
            one.root.name,
            one.sampler,
            len(one.trials),
            len(one.configurations),
            one.cost_to_score(one.configurations[0].cost),
            one.cost_to_score(expected_best(configuration_costs(one)).mean[least - 1]),
            None if math.isnan(one.seed_noise) else one.seed_noise,
            format_duration(sum(t.seconds or 0.0 for t in one.trials)),
        ]
        for one in known
    ]
    columns = [
        *messages("study", "sampler", "trials", "configurations"),
        translate("best {score}", score=studies[0].score),
        translate("expected best of {least}", least=least),
        *messages("seed noise", "time"),
    ]
    return Section("Summary", [BulletList(lines), Table("studies", columns, rows)])


def largest_seed_noise(studies: Sequence[StudyResults]) -> float:
    """The largest seed noise of the studies; nan where none is known."""
    return max((one.seed_noise for one in studies if not math.isnan(one.seed_noise)), default=math.nan)


def configuration_costs(study: StudyResults) -> list[float]:
    """The cost of every configuration of a study."""
    return [point.cost for point in study.configurations]


def expected_best_section(studies: Sequence[StudyResults]) -> list[Section]:
    """The section with the expected best over the number of configurations."""
    known = comparable_studies(studies)
    if len(known) < 2 or max(len(one.configurations) for one in known) < 3:
        return []
    title = translate("Expected best of n configurations")
    series = [expected_best_series(one, expected_best(configuration_costs(one))) for one in known]
    svg = line_chart(series, title=title, x_label=translate("configurations tried"), y_label=known[0].score)
    words = translate(
        "With the middle 90 %. A study that is ahead everywhere has the better space, or the better sampler."
    )
    return [Section(message("For the same number of trials"), [Chart("best_of_n", svg, words, title)])]


def expected_best_series(study: StudyResults, expected: ExpectedBest) -> Series:
    """The expected best of a study as a line with its band."""
    low, high = [study.cost_to_score(v) for v in expected.low], [study.cost_to_score(v) for v in expected.high]
    ends = [sorted(pair) for pair in zip(low, high, strict=True)]
    return Series(
        study.root.name,
        list(map(float, expected.counts)),
        [study.cost_to_score(v) for v in expected.mean],
        [a for a, _ in ends],
        [b for _, b in ends],
    )


def best_configurations_section(studies: Sequence[StudyResults]) -> list[Section]:
    """The section with the best configuration of each study, side by side."""
    known = [one for one in studies if one.configurations]
    names = list(dict.fromkeys(name for one in known for name in one.configurations[0].params))
    rows: list[list[CellValue]] = [
        [name, *(to_cell(one.configurations[0].params.get(name)) for one in known)] for name in names
    ]
    columns = [*messages("setting"), *(one.root.name for one in known)]
    return [Section(message("Best configurations"), [Table("best_configurations", columns, rows)])] if rows else []


def spaces_section(studies: Sequence[StudyResults]) -> list[Section]:
    """The section with the search space of each study."""
    names = list(dict.fromkeys(setting.name for one in studies for setting in one.varied_settings))
    tables = [{setting.name: format_setting_range(setting) for setting in one.varied_settings} for one in studies]
    rows: list[list[CellValue]] = [[name, *(table.get(name) for table in tables)] for name in names]
    blocks: list[Block] = [Table("spaces", [*messages("setting"), *(one.root.name for one in studies)], rows)]
    fixed = [f"{one.root.name}: {' '.join(one.fixed_overrides) or format_value(None)}" for one in studies]
    return [
        Section(
            message("Spaces"),
            [*blocks, Paragraph(translate("Fixed: {settings}.", settings=translate("; ").join(fixed)), "soft")],
        )
    ]
