"""What mattered, worked out once for all sections, and the section on the effect of each setting.  Pure."""

import math
from dataclasses import dataclass
from functools import cached_property

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.effects.importance import ped_anova
from tunelab.effects.isolation import Stretch, isolation
from tunelab.effects.setting import Setting, told
from tunelab.effects.surrogate import Surrogate, fit, inputs
from tunelab.effects.variance import Shares, dependence, shares
from tunelab.report.blocks import Block, Chart, Grid, Section, Value
from tunelab.report.numbers import slug
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, percent, shown

MOST = 12  # settings that get drawings of their own


@dataclass(frozen=True)
class Mattered:
    """What was worked out once, for all sections."""

    study: StudyFacts

    @cached_property
    def settings(self) -> list[Setting]:
        """Those with two values or more among what came through."""
        return [
            one
            for one in self.study.settings
            if len({repr(point.params.get(one.name)) for point in self.study.points}) > 1
        ]

    @cached_property
    def surface(self) -> Surrogate | None:
        """The surface through the trials; None where there are too few."""
        rows = [point.params for point in self.study.points]
        if not self.settings or len(rows) < max(6, len(self.settings) + 3):
            return None
        try:
            return fit(inputs(self.settings, rows), rows, [point.cost for point in self.study.points])
        except ValueError:
            return None

    @cached_property
    def shares(self) -> Shares | None:
        """Shares of the variance."""
        return shares(self.surface) if self.surface else None

    @cached_property
    def top(self) -> dict[str, float]:
        """Importance for being among the best; empty of too few."""
        return ped_anova([one for one in self.settings if one.name not in self.study.conditional], self.study.points)

    @property
    def total(self) -> dict[str, float]:
        """What each setting has a part in."""
        found = self.shares.total if self.shares else ()
        return {one.name: share for one, share in zip(self.settings, found, strict=False)}

    @property
    def weight(self) -> dict[str, float]:
        """The larger of both importances: a setting that matters by either is worth trials."""
        return {name: max(share, self.top.get(name, 0.0)) for name, share in self.total.items()}

    @property
    def explained(self) -> float:
        """How far the surface is to be trusted; below 0 not at all."""
        return self.surface.explained if self.surface else -math.inf


def effects(found: Mattered) -> list[Section]:
    """The effect of each setting: its values at their best, and on average."""
    study, blocks = found.study, list[Block]()
    if len(study.points) < 3 or not found.settings:
        return []
    order = sorted(range(len(found.settings)), key=lambda at: -found.total.get(found.settings[at].name, 0.0))
    for at in order[:MOST]:
        setting = found.settings[at]
        blocks.append(isolated(study, setting, isolation(setting, study.points)))
        if found.surface is not None and found.explained > 0:
            blocks.append(on_average(study, setting, at, found.surface))
    blocks.append(table_of(study, found.settings))
    lead = (
        "At their best: at each value all other settings stand where they did best, and the band is where that best "
        "would lie for other trials as many (90 %). On average: over all values of the others, from a fitted surface."
    )
    return [Section("Effect of each setting", blocks, lead)]


def clearly_worse(one: Stretch, best: Stretch, noise: float) -> bool:
    """Whether a value's best is worse beyond luck; a single configuration tells that only by the seeds' noise."""
    if one.low <= best.high:
        return False
    return one.count > 2 if math.isnan(noise) else one.best - best.best > 2 * math.sqrt(2) * noise


def isolated(study: StudyFacts, setting: Setting, stretches: list[Stretch]) -> Chart:
    """The isolation plot."""
    title = f"{setting.name}: each value at its best"
    best = min(stretches, key=lambda one: one.best)
    words = f"Best at {best.label}, {study.score} {shown(study.value(best.best))}"
    apart = [one for one in stretches if clearly_worse(one, best, study.noise)]
    words += (
        f"; clearly worse at {', '.join(one.label for one in apart[:4])}."
        if apart
        else "; no other value is clearly worse."
    )
    low = [min(study.value(one.low), study.value(one.high)) for one in stretches]
    high = [max(study.value(one.low), study.value(one.high)) for one in stretches]
    values = [study.value(one.best) for one in stretches]
    name = f"effect_{slug(setting.name)}"
    if not setting.numeric or any(one.place >= 1e6 for one in stretches):
        rows: list[str] = [one.label for one in stretches]
        return Chart(
            name,
            bar_chart(rows, [Bars("", values, low, high)], title=title, value_label=study.score, level=True),
            words,
            title,
        )
    series = Series(
        study.score,
        [one.place for one in stretches],
        values,
        low,
        high,
        names=[f"{one.label}, {counted(one.count, 'configuration')}" for one in stretches],
    )
    svg = line_chart(
        [series], title=title, x_label=setting.name, y_label=study.score, x_scale="log" if setting.log else "linear"
    )
    return Chart(name, svg, words, title)


def on_average(study: StudyFacts, setting: Setting, at: int, surface: Surrogate) -> Chart:
    """The partial dependence."""
    title = f"{setting.name}: on average over the others"
    places, means, spreads = dependence(surface, at)
    values = [study.value(float(mean)) for mean in means]
    halves = [1.96 * float(spread) for spread in spreads]
    low, high = (
        [v - h for v, h in zip(values, halves, strict=True)],
        [v + h for v, h in zip(values, halves, strict=True)],
    )
    name = f"average_{slug(setting.name)}"
    words = (
        "Band: 95 % of what the fitted surface does not know. "
        f"It explains {percent(max(0.0, surface.explained))} of the variance of trials it was not shown."
    )
    labels = surface.columns.labels[at]
    if labels:
        return Chart(
            name,
            bar_chart(list(labels), [Bars("", values, low, high)], title=title, value_label=study.score, level=True),
            words,
            title,
        )
    xs = [setting.at(float(place)) for place in places]
    svg = line_chart(
        [Series(study.score, xs, values, low, high)],
        title=title, x_label=setting.name, y_label=study.score, x_scale="log" if setting.log else "linear",
    )  # fmt: skip
    return Chart(name, svg, words, title)


def table_of(study: StudyFacts, settings: list[Setting]) -> Grid:
    """The numbers behind the isolation plots."""
    rows: list[list[Value]] = []
    for setting in settings:
        for one in isolation(setting, study.points):
            beside = ", ".join(f"{k}={told(v)}" for k, v in one.point.params.items() if k != setting.name)
            ends = sorted((study.value(one.low), study.value(one.high)))
            rows.append([setting.name, one.label, study.value(one.best), *ends, one.count, beside])
    columns = ["setting", "value", study.score, "low", "high", "configurations", "where the others stood"]
    return Grid("effects", columns, rows, "The numbers behind the drawings of values at their best.")
