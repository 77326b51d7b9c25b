"""Importance of a study's settings, computed once, and its sections: effects, importance, parallel axes.  Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tunelab.analysis.configurations import ABSENT, Setting, format_value, is_number
from tunelab.analysis.importance import (
    TRIALS_PER_STRETCH,
    ValueRange,
    VarianceShares,
    is_clearly_worse,
    isolate_setting,
    partial_dependence,
    ped_anova_importance,
    variance_shares,
)
from tunelab.analysis.surrogate import Surrogate, fit_surrogate, input_columns
from tunelab.language.translation import messages, translate
from tunelab.report.charts.axes import Series
from tunelab.report.charts.bars import Bars, bar_chart
from tunelab.report.charts.lines import line_chart
from tunelab.report.charts.matrices import Axis, heat_map, number_ticks, parallel_coordinates
from tunelab.report.document import Block, BulletList, CellValue, Chart, Fold, Paragraph, Section, Table, Tone
from tunelab.report.formatting import format_cell, format_count, format_percent
from tunelab.report.prediction_sections import file_slug
from tunelab.report.study_reader import StudyResults

FULL_INTERACTION = 10.0  # per cent of the variance that are painted fully
CHARTED_SETTINGS = 12  # settings that get drawings of their own
MIN_DRAWN = 16  # configurations from which on a line through the stretches of a range, or a band, says something


@dataclass(frozen=True)
class ImportanceAnalysis:
    """Surrogate and importances of a study, computed once for all sections."""

    study: StudyResults

    @cached_property
    def settings(self) -> list[Setting]:
        """Settings with two values or more among the complete configurations."""
        return [
            one
            for one in self.study.varied_settings
            if len({repr(point.params.get(one.name)) for point in self.study.configurations}) > 1
        ]

    @cached_property
    def surrogate(self) -> Surrogate | None:
        """The surrogate of the trials; None where there are too few."""
        rows = [point.params for point in self.study.configurations]
        if not self.settings or len(rows) < max(6, len(self.settings) + 3):
            return None
        try:
            return fit_surrogate(
                input_columns(self.settings, rows), rows, [point.cost for point in self.study.configurations]
            )
        except ValueError:
            return None

    @cached_property
    def variance_shares(self) -> VarianceShares | None:
        """Sobol shares of the surrogate; None without one."""
        return variance_shares(self.surrogate) if self.surrogate else None

    @cached_property
    def ped_anova(self) -> dict[str, float]:
        """PED-ANOVA importances; empty of too few trials."""
        return ped_anova_importance(
            [one for one in self.settings if one.name not in self.study.conditional], self.study.configurations
        )

    @property
    def total_shares(self) -> dict[str, float]:
        """The total Sobol share of each setting."""
        shares = self.variance_shares.total if self.variance_shares else ()
        return {one.name: share for one, share in zip(self.settings, shares, strict=False)}

    @property
    def larger_importance(self) -> dict[str, float]:
        """The larger of both importances: a setting that matters by either is worth trials."""
        return {name: max(share, self.ped_anova.get(name, 0.0)) for name, share in self.total_shares.items()}

    @property
    def explained_variance(self) -> float:
        """Leave-one-out explained variance of the surrogate; at or below 0 it is not to be trusted."""
        return self.surrogate.explained if self.surrogate else -math.inf


def effects_section(analysis: ImportanceAnalysis) -> list[Section]:
    """The effect of each setting: its values at their best, and on average."""
    study, blocks = analysis.study, list[Block]()
    if len(study.configurations) < 3 or not analysis.settings:
        return []
    order = sorted(
        range(len(analysis.settings)), key=lambda at: -analysis.total_shares.get(analysis.settings[at].name, 0.0)
    )
    averages: list[Block] = []
    for at in order[:CHARTED_SETTINGS]:
        setting = analysis.settings[at]
        blocks.append(isolation_chart(study, setting, isolate_setting(setting, study.configurations)))
        if analysis.surrogate is not None and analysis.explained_variance > 0:
            averages.append(partial_dependence_chart(study, setting, at, analysis.surrogate))
    averages.append(effects_table(study, analysis.settings))
    several = len(averages) > 1
    blocks.append(
        Fold(
            translate("the numbers and their averages over the other settings" if several else "the numbers"), averages
        )
    )
    lead = translate(
        "Points are trials, the best is ringed, crosses are trials without a score, and the axis is the range that was "
        "searched. The line is the best score found with each value, its band the 90 % bootstrap of that best score."
    )
    return [Section("Effect of each setting", blocks, lead)]


def isolation_chart(study: StudyResults, setting: Setting, stretches: list[ValueRange]) -> Chart:
    """The isolation plot of a setting: every trial as a point, and a line through the best of each value or stretch."""
    title = translate("{name}: best score with each value", name=setting.name)
    best = min(stretches, key=lambda one: one.best)
    where = format_value(best.point.params.get(setting.name, ABSENT))
    words = translate(
        "Best at {where}, {score} {value}",
        where=where,
        score=study.score,
        value=format_cell(study.cost_to_score(best.best)),
    )
    apart = [one for one in stretches if is_clearly_worse(one, best, study.seed_noise)]
    words += (
        translate("; clearly worse at {names}.", names=", ".join(one.label for one in apart[:4]))
        if apart
        else translate("; no other value is clearly worse.")
    )
    low, high = best_bands(study, stretches)
    values = [study.cost_to_score(one.best) for one in stretches]
    name = f"effect_{file_slug(setting.name)}"
    if not setting.numeric or any(one.place >= 1e6 for one in stretches):
        rows = [one.label for one in stretches]
        dots = [scores_at(study, setting, label) for label in rows]
        bars = Bars("", values, low, high, dots, best=stretches.index(best))
        return Chart(name, bar_chart(rows, [bars], title=title, value_label=study.score, level=True), words, title)
    if setting.is_range and len(study.configurations) < MIN_DRAWN:
        stretches, values, low, high = [], [], [], []
        words += translate(" Too few trials for a line.")
    series = Series(
        study.score,
        [float(one.point.params[setting.name]) for one in stretches],
        values,
        low,
        high,
        tooltip_names=[f"{one.label}, {format_count(one.count, 'configuration')}" for one in stretches],
    )
    return Chart(name, trials_chart(study, setting, series, title), with_missing(words, study, setting), title)


def best_bands(study: StudyResults, stretches: list[ValueRange]) -> tuple[list[float], list[float]]:
    """The 90 % bootstrap band of the best score of each stretch; nan where there are too few trials."""
    bands = [
        sorted((study.cost_to_score(one.low), study.cost_to_score(one.high)))
        if one.count >= TRIALS_PER_STRETCH
        else [math.nan, math.nan]
        for one in stretches
    ]
    return [low for low, _ in bands], [high for _, high in bands]


def scores_at(study: StudyResults, setting: Setting, label: str) -> list[float]:
    """The scores of all trials at one value of a setting."""
    return [
        float(trial.value or 0.0)
        for trial in study.trials
        if trial.done and format_value(trial.params.get(setting.name, ABSENT)) == label
    ]


def trials_chart(study: StudyResults, setting: Setting, line: Series, title: str) -> str:
    """A line over a number with every trial as a point, the best ringed, on an axis as wide as what was searched."""
    held = [trial for trial in study.trials if is_number(trial.params.get(setting.name))]
    done = [trial for trial in held if trial.done]
    numbers = study.best.trial_numbers if study.best else ()
    of_best = [at for at, trial in enumerate(done) if trial.number in numbers]
    sign = 1 if study.lower_is_better else -1
    series = replace(
        line,
        points=[(float(trial.params[setting.name]), float(trial.value or 0.0)) for trial in done],
        point_names=[f"{one.name}: {format_value(one.params[setting.name])}, {format_cell(one.value)}" for one in done],
        best=min(of_best, key=lambda at: sign * float(done[at].value or 0.0)) if of_best else -1,
        missing=[float(trial.params[setting.name]) for trial in held if not trial.done],
        missing_on_top=study.lower_is_better,
    )
    return line_chart(
        [series],
        title=title,
        x_label=setting.name,
        y_label=study.score,
        x_scale="log" if setting.log else "linear",
        x_range=(setting.low, setting.high),
    )


def with_missing(words: str, study: StudyResults, setting: Setting) -> str:
    """A caption with what the crosses are, if there are any."""
    count = sum(not trial.done and is_number(trial.params.get(setting.name)) for trial in study.trials)
    return (
        translate("{words} Crosses: {trials} without a score.", words=words, trials=format_count(count, "trial"))
        if count
        else words
    )


def partial_dependence_chart(study: StudyResults, setting: Setting, at: int, surface: Surrogate) -> Chart:
    """The partial dependence plot of a setting, with every trial as a point."""
    title = translate("{name}: on average over the others", name=setting.name)
    places, means, spreads = partial_dependence(surface, at)
    values = [study.cost_to_score(float(mean)) for mean in means]
    enough = len(study.configurations) >= MIN_DRAWN
    halves = [1.96 * float(spread) if enough else math.nan for spread in spreads]
    low, high = (
        [v - h for v, h in zip(values, halves, strict=True)],
        [v + h for v, h in zip(values, halves, strict=True)],
    )
    name = f"average_{file_slug(setting.name)}"
    words = (
        translate("Band: 95 % uncertainty of the surrogate model. ")
        if enough
        else translate("Too few trials for a band. ")
    )
    explained = format_percent(max(0.0, surface.explained))
    words += translate("The model explains {share} of the variance of held-out trials.", share=explained)
    labels = surface.input_columns.labels[at]
    if labels:
        points = [scores_at(study, setting, label) for label in labels]
        return Chart(
            name,
            bar_chart(
                list(labels), [Bars("", values, low, high, points)], title=title, value_label=study.score, level=True
            ),
            words,
            title,
        )
    xs = [setting.from_unit(float(place)) for place in places]
    svg = trials_chart(study, setting, Series(study.score, xs, values, low, high), title)
    return Chart(name, svg, with_missing(words, study, setting), title)


def effects_table(study: StudyResults, settings: list[Setting]) -> Table:
    """The values of the isolation plots as a table."""
    rows: list[list[CellValue]] = []
    for setting in settings:
        for one in isolate_setting(setting, study.configurations):
            beside = ", ".join(f"{k}={format_value(v)}" for k, v in one.point.params.items() if k != setting.name)
            ends = sorted((study.cost_to_score(one.low), study.cost_to_score(one.high)))
            rows.append([setting.name, one.label, study.cost_to_score(one.best), *ends, one.count, beside])
    columns = [
        *messages("setting", "value"),
        study.score,
        *messages("low", "high", "configurations", "where the others stood"),
    ]
    return Table("effects", columns, rows, translate("The best score found with each value."))


TRUSTED_SHARE = 0.3  # share of the variance that a surface must explain to be drawn


def importance_section(analysis: ImportanceAnalysis) -> list[Section]:
    """Importance by two methods that answer different questions, and interactions."""
    settings = analysis.settings
    if len(settings) < 2:
        return []
    names = [one.name for one in settings]
    top = analysis.ped_anova
    blocks: list[Block] = []
    if analysis.variance_shares is None and not top:
        text = translate("Too few configurations to tell which setting mattered more: ten or more do.")
        return [Section("Importance", [Paragraph(text, "soft")])]
    warn = translate(
        "Importance covers the space that was searched and nothing else: a range that is too wide makes a setting look "
        "important, one that was chosen well makes it look like nothing, and trials that broke or were ended early do "
        "not count."
    )
    blocks.append(Paragraph(warn, "soft"))
    if analysis.variance_shares is not None and analysis.surrogate is not None:
        sure = analysis.explained_variance
        tone: Tone = "good" if sure >= TRUSTED_SHARE else "warn"
        text = translate(
            "The surrogate model explains {share} of the variance of held-out trials",
            share=format_percent(max(0.0, sure)),
        )
        line = (
            translate("{value}.", value=text)
            if sure >= TRUSTED_SHARE
            else translate("{words}: the shares of fANOVA are a guess.", words=text)
        )
        blocks.append(BulletList([Paragraph(line, tone)]))
        bars = [
            Bars(translate("alone"), [100 * x for x in analysis.variance_shares.first_order]),
            Bars(translate("with others"), [100 * x for x in analysis.variance_shares.total]),
        ]
        order = sorted(range(len(names)), key=lambda at: -analysis.total_shares[names[at]])
        bars = [Bars(one.name, [one.values[at] for at in order]) for one in bars]
        title = translate("Share of the variance over the whole space (fANOVA)")
        svg = bar_chart(
            [names[at] for at in order],
            bars,
            title=title,
            value_label=translate("per cent of the variance"),
            level=True,
        )
        blocks.append(
            Chart(
                "importance",
                svg,
                translate("What would stay unknown without a setting: alone, and together with others."),
                title,
            )
        )
    if top:
        order_top = sorted(top, key=lambda name: -top[name])
        title = translate("For being among the best tenth (PED-ANOVA)")
        svg = bar_chart(
            order_top,
            [Bars("", [100 * top[n] for n in order_top])],
            title=title,
            value_label=translate("per cent"),
            level=True,
        )
        blocks.append(
            Chart(
                "importance_top",
                svg,
                translate("How far the best trials' values differ from all trials' values."),
                title,
            )
        )
    rows: list[list[CellValue]] = [
        [
            name,
            analysis.variance_shares.first_order[at] if analysis.variance_shares else None,
            analysis.variance_shares.total[at] if analysis.variance_shares else None,
            top.get(name),
        ]
        for at, name in enumerate(names)
    ]
    table = Table("importance", messages("setting", "fANOVA alone", "fANOVA with others", "PED-ANOVA"), rows)
    blocks += [*interaction_chart(analysis, names), Fold(translate("the numbers"), [table])]
    return [Section("Importance", blocks)]


def interaction_chart(analysis: ImportanceAnalysis, names: list[str]) -> list[Block]:
    """The second-order shares of pairs of settings."""
    if analysis.variance_shares is None or len(names) < 2 or analysis.explained_variance <= 0:
        return []
    pairs = analysis.variance_shares.second_order
    values = [
        [100 * pairs[(min(a, b), max(a, b))] if a != b else math.nan for b in range(len(names))]
        for a in range(len(names))
    ]
    title = translate("Interactions: per cent explained only together")
    (a, b), most = max(pairs.items(), key=lambda item: item[1])
    words = (
        translate(
            "Strongest: {names} with {other}, {share}: the best value of one depends on the "
            "other, so tune them together.",
            names=names[a],
            other=names[b],
            share=format_percent(most),
        )
        if most > 0.03
        else translate("No pair matters much beyond its parts: settings may be tuned one by one.")
    )
    short = [short_name(one, analysis.settings) for one in analysis.settings]
    return [Chart("interactions", heat_map(short, short, values, title=title, full=FULL_INTERACTION), words, title)]


def parallel_coordinates_charts(analysis: ImportanceAnalysis) -> list[Block]:
    """All settings at once, as parallel coordinates."""
    study, settings = analysis.study, analysis.settings[:10]
    if len(study.configurations) < 3 or not settings:
        return []
    costs = [point.cost for point in study.configurations]
    middle = sorted(costs)[(3 * len(costs)) // 4]
    span = max(middle - costs[0], 1e-300)
    worth = [max(0.0, 1 - (cost - costs[0]) / span / 1.3) for cost in costs]
    axes = [replace(parallel_axis(one, analysis), name=short_name(one, settings)) for one in settings]
    values = [study.cost_to_score(min(cost, middle)) for cost in costs]
    low, high = min(values), max(values)
    places = [(v - low) / (high - low) if high > low else 0.5 for v in values]
    axes.append(Axis(study.score, places, number_ticks(low, high, log=False)))
    tooltips = [
        translate(
            "trial {number}: {score} {value}; ",
            number=point.trial_numbers[0],
            score=study.score,
            value=format_cell(study.cost_to_score(point.cost)),
        )
        + ", ".join(f"{k}={format_value(v)}" for k, v in point.params.items())
        for point in study.configurations
    ]
    title = translate("All settings at once")
    svg = parallel_coordinates(
        axes, worth, [str(p.trial_numbers[0]) for p in study.configurations], tooltips, title=title
    )
    words = translate(
        "A filter of the ranks fades the lines that do not match. Scores of the worst "
        "quarter are drawn at the end of their axis."
    )
    return [Chart("parallel", svg, words, title)]


def short_name(setting: Setting, settings: Sequence[Setting]) -> str:
    """The last part of a setting's name, where no other setting ends in it."""
    last = setting.name.rpartition(".")[2]
    return last if sum(one.name.rpartition(".")[2] == last for one in settings) == 1 else setting.name


def parallel_axis(setting: Setting, analysis: ImportanceAnalysis) -> Axis:
    """A setting as an axis of parallel coordinates."""
    held = [point.params.get(setting.name) for point in analysis.study.configurations]
    if setting.numeric and all(is_number(v) and (not setting.log or v > 0) for v in held if v is not None):
        places = [setting.to_unit(float(v)) if v is not None else math.nan for v in held]
        return Axis(setting.name, places, number_ticks(setting.low, setting.high, log=setting.log))
    labels = list(dict.fromkeys(str(v) for v in held if v is not None))
    spots = {label: (at + 0.5) / len(labels) for at, label in enumerate(labels)}
    return Axis(
        setting.name, [spots.get(str(v), math.nan) for v in held], [(spot, label) for label, spot in spots.items()]
    )
