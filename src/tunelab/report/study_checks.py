"""The section of checks on a study: range boundaries, failures, seed noise, budget, learning curves.  Pure."""

import math
from collections import Counter
from collections.abc import Sequence

from tunelab.analysis.configurations import Configuration, format_value
from tunelab.analysis.learning_curves import CurveUnit, diagnose_curve
from tunelab.analysis.next_space import (
    BoundaryHit,
    FailureLimit,
    find_boundary_hits,
    find_failure_limits,
    is_legal_end,
    widen_range,
)
from tunelab.analysis.statistics import expected_best
from tunelab.config.schema import legal_ranges
from tunelab.language.translation import message, messages, translate
from tunelab.report.charts.axes import Series
from tunelab.report.charts.lines import line_chart
from tunelab.report.document import Block, BulletList, CellValue, Chart, Paragraph, Section, Table, Tone
from tunelab.report.formatting import format_cell, format_count, format_percent
from tunelab.report.importance_sections import ImportanceAnalysis
from tunelab.report.study_reader import StudyResults

DIAGNOSED_CURVES = 5  # best trials whose curves are judged
FAILED_SHARE = 0.2  # share of failed trials from which on there is a warning


def checks_section(analysis: ImportanceAnalysis) -> list[Section]:
    """The section of checks."""
    study = analysis.study
    if not study.configurations:
        return []
    lines = [
        *boundary_paragraphs(study),
        *failure_limit_paragraphs(study),
        *failed_trial_paragraphs(study),
        *seed_noise_paragraphs(study),
    ]
    parts = [BulletList(lines), *budget_blocks(study), *best_curve_blocks(study)]
    # in one list, so that the charts stand side by side
    said = [line for part in parts if isinstance(part, BulletList) for line in part.lines]
    blocks: list[Block] = [BulletList(said), *(part for part in parts if not isinstance(part, BulletList))]
    return [Section("Checks", blocks, translate("What to look at before believing the ranking."))]


def study_boundary_hits(study: StudyResults) -> list[BoundaryHit]:
    """Boundaries of the search space at which the best configuration stands."""
    return find_boundary_hits(study.varied_settings, study.configurations)


def study_failure_limits(study: StudyResults) -> list[FailureLimit]:
    """Values close to the best's beyond which every run failed."""
    return find_failure_limits(study.varied_settings, study.trials, lower=study.lower_is_better)


def boundary_paragraphs(study: StudyResults) -> list[Paragraph]:
    """Verdicts on the boundaries; by how much to widen stands under what to run next."""
    hits = study_boundary_hits(study)
    if len(study.configurations) < 4:
        return [Paragraph(translate("Too few configurations to tell whether the best stands at a boundary."))]
    ranked = sorted(study.configurations, key=lambda point: point.cost)
    lines = [boundary_paragraph(one, ranked, study.seed_noise) for one in hits]
    return lines or [Paragraph(translate("No setting's best value stands at a boundary of its range."), "good")]


def boundary_paragraph(hit: BoundaryHit, ranked: Sequence[Configuration], noise: float) -> Paragraph:
    """The verdict on one boundary, as the suggestion for the next search has it: it warns of what that would widen."""
    setting = hit.setting
    text = translate(
        "{name}: the best value {value} stands at the {side} boundary of what was {seen} ({low} to {high})",
        name=setting.name,
        value=format_value(hit.value),
        side=translate("low" if hit.side == "low" else "high"),
        seen=translate("searched" if setting.from_search_space else "tried"),
        low=format_value(setting.low),
        high=format_value(setting.high),
    )
    legal = legal_ranges().get(setting.name)
    if is_legal_end(setting, hit.side, legal):
        return Paragraph(translate("{words}, beyond which no value is legal.", words=text))
    if widen_range(setting, hit.side, hit.value, ranked, noise, legal).action == "keep":
        return Paragraph(translate("{words}, but the value beside it is not worse beyond noise.", words=text))
    return Paragraph(translate("{words}: a better one may lie beyond.", words=text), "warn")


def failure_limit_paragraphs(study: StudyResults) -> list[Paragraph]:
    """Verdicts on failures close to the best configuration."""
    return [
        Paragraph(
            translate(
                "{name}: all {failures} [run|runs] above {limit} broke, and the best ({value}) is close "
                "to that. A longer warm-up (scheduler.warmup) or a lower trainer.gradient_clip_val "
                "may move the limit; else stay clear of it."
                if one.side == "above"
                else "{name}: all {failures} [run|runs] below {limit} broke, and the best ({value}) is close "
                "to that. A longer warm-up (scheduler.warmup) or a lower trainer.gradient_clip_val "
                "may move the limit; else stay clear of it.",
                name=one.setting.name,
                failures=one.failures,
                limit=format_value(one.limit),
                value=format_value(one.value),
            ),
            "warn",
        )
        for one in study_failure_limits(study)
    ]


def failed_trial_paragraphs(study: StudyResults) -> list[Paragraph]:
    """Verdicts on trials without a score."""
    failed = [trial for trial in study.trials if trial.state == "failed"]
    if not failed:
        return []
    kinds = ", ".join(
        f"{many} {translate(kind or 'failed')}" for kind, many in Counter(t.kind for t in failed).most_common()
    )
    share = len(failed) / len(study.trials)
    text = translate(
        "{count} of {total} [trial|trials] left no score ({kinds})",
        count=len(failed),
        total=len(study.trials),
        kinds=kinds,
    )
    if share >= FAILED_SHARE:
        return [
            Paragraph(
                translate(
                    "{words}: part of the space cannot be trained, and the rankings know nothing of it.", words=text
                ),
                "warn",
            )
        ]
    return [Paragraph(translate("{value}.", value=text))]


def seed_noise_paragraphs(study: StudyResults) -> list[Paragraph]:
    """Verdicts on the noise between seeds against the differences between configurations."""
    if math.isnan(study.seed_noise):
        return []  # the summary says that it is unknown
    gaps = [point.cost - study.configurations[0].cost for point in study.configurations]
    alike = (
        sum(
            gap <= 2 * study.seed_noise * math.sqrt(1 / len(study.configurations[0].costs) + 1 / len(point.costs))
            for gap, point in zip(gaps, study.configurations, strict=True)
        )
        - 1
    )
    text = translate(
        "Seeds of one configuration differ by {seed_noise} (standard deviation)",
        seed_noise=format_cell(study.seed_noise),
    )
    if not alike:
        return [
            Paragraph(
                translate("{words}; the best is ahead of all others by more than that explains.", words=text), "good"
            )
        ]
    return [
        Paragraph(
            translate(
                "{words}: {configurations} cannot be told from the best.",
                words=text,
                configurations=format_count(alike, "configuration"),
            ),
            "warn",
        )
    ]


def budget_blocks(study: StudyResults) -> list[Block]:
    """The expected best of n trials, with a verdict on the budget."""
    if len(study.configurations) < 6:
        return [Paragraph(translate("Too few configurations to tell whether more of them would pay."), "soft")]
    expected = expected_best([point.cost for point in study.configurations])
    text, tone = budget_verdict(study)
    values = [study.cost_to_score(value) for value in expected.mean]
    low, high = [study.cost_to_score(v) for v in expected.low], [study.cost_to_score(v) for v in expected.high]
    title = translate("Best of n trials")
    kept = [at for at in range(len(values)) if math.isfinite(values[at]) and (at or len(values) < 4)]
    series = Series(
        translate("expected best"), [float(expected.counts[at]) for at in kept], [values[at] for at in kept],
        [min(low[at], high[at]) for at in kept], [max(low[at], high[at]) for at in kept],
    )  # fmt: skip
    svg = line_chart(
        [series],
        title=title,
        x_label=translate("configurations tried"),
        y_label=translate("best {score}", score=study.score),
    )
    words = translate(
        "Expected, with the middle 90 %: what n of these trials, drawn at random, would have "
        "found. A search that learns does better with its later ones."
    )
    return [BulletList([Paragraph(text, tone)]), Chart("best_of_n", svg, words, title)]


def budget_verdict(study: StudyResults) -> tuple[str, Tone]:
    """The verdict on the budget."""
    gain = expected_best([point.cost for point in study.configurations]).late_gain
    text = translate(
        "Half of the {count} [configuration|configurations] would have found a best {gain} worse on average",
        count=len(study.configurations),
        gain=format_cell(gain),
    )
    if gain == 0:
        return translate("{words}: the budget was enough for this space.", words=text), "good"
    if math.isnan(study.seed_noise):
        costs = sorted(point.cost for point in study.configurations)
        middle = costs[len(costs) // 2] - costs[0]
        small = gain < 0.05 * middle
        share_text = (
            translate("{share} of the gap between the best and the median", share=format_percent(gain / middle))
            if middle
            else translate("nothing")
        )
        end = translate("more of them would find little") if small else translate("more of them may pay")
        return f"{text}, {share_text}: {end}.", "good" if small else "warn"
    if gain < study.seed_noise:
        return (
            translate(
                "{words}, less than seeds differ by ({seed_noise}): the budget was enough for this space.",
                words=text,
                seed_noise=format_cell(study.seed_noise),
            ),
            "good",
        )
    return translate(
        "{words}, more than seeds differ by ({seed_noise}): more of them may pay.",
        words=text,
        seed_noise=format_cell(study.seed_noise),
    ), "warn"


def best_curve_blocks(study: StudyResults) -> list[Block]:
    """Learning curves of the best configurations, with a verdict on each."""
    best = [study.trial(point.trial_numbers[0]) for point in study.configurations[:DIAGNOSED_CURVES]]
    rows: list[list[CellValue]] = []
    series = []
    # as trials and as runs record their curves
    unit: CurveUnit = "validation" if study.is_search else "step"
    for trial in best:
        steps, values = [step for step, _ in trial.curve], [value for _, value in trial.curve]
        judged = diagnose_curve(steps, values, lower=study.lower_is_better, name=study.score, unit=unit)
        rows.append(
            [trial.name, trial.value, len(values), message(judged.shape), " ".join(text for _, text in judged.verdicts)]
        )
        if len(values) > 1:
            series.append(Series(trial.name, steps, values))
    blocks: list[Block] = [BulletList([curve_verdict([str(row[3]) for row in rows])])]
    if series:
        title = translate("Learning curves of the best")
        blocks.append(
            Chart(
                "learning_curves",
                line_chart(
                    series,
                    title=title,
                    x_label=translate("validations" if study.is_search else "optimizer steps"),
                    y_label=study.score,
                ),
                "",
                title,
            )
        )
    columns = [*messages("trial"), study.score, *messages("validations", "verdict", "in words")]
    blocks.append(Table("learning", columns, rows, translate("Verdicts on the curves of the best.")))
    return blocks


def curve_verdict(kinds: list[str]) -> Paragraph:
    """The verdict on the curves of the best together."""
    many, known = Counter(kinds), len(kinds) - kinds.count("unknown")
    if not known:
        return Paragraph(
            translate(
                "The best trials were validated too seldom to judge their curves: "
                "trainer.val_check_interval=0.25 gives more."
            ),
            "warn",
        )
    if many["improving"] * 2 > known:
        text = (
            translate("The best was still getting better at its end: longer runs may pay (max_epochs).")
            if known == 1
            else translate(
                "{improving} of the {known} best were still getting better at their end: longer runs may pay "
                "(max_epochs).",
                improving=many["improving"],
                known=known,
            )
        )
        return Paragraph(text, "warn")
    if sum(many[kind] for kind in ("over-fitted", "worsened", "early", "never better")) * 2 > known:
        return Paragraph(
            translate(
                "Most of the best were past their best step at their end: shorter runs or more regularization would do."
            ),
            "warn",
        )
    if many["settled"] * 2 > known:
        return Paragraph(translate("The best have settled: the length of the runs fits."), "good")
    return Paragraph(translate("The curves of the best disagree on whether longer or shorter runs would be better."))
