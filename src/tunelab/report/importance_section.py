"""The section on importance: two methods that answer different questions, and interactions of pairs.  Pure."""

import math

from tunelab.charts.bar import Bars, bar_chart
from tunelab.charts.heat import heat_map
from tunelab.report.blocks import Block, Chart, Grid, Section, Tone, Value, Words
from tunelab.report.mattered import Mattered
from tunelab.report.words import percent

TRUSTED = 0.3  # share of the variance that a surface must explain to be told from


def importance(found: Mattered) -> list[Section]:
    """Importance by two methods that answer different questions, and interactions."""
    settings = found.settings
    if len(settings) < 2:
        return []
    names = [one.name for one in settings]
    top = found.top
    blocks: list[Block] = []
    if found.shares is None and not top:
        text = "Too few configurations to tell which setting mattered more: ten or more do."
        return [Section("Importance", [Words(text, "soft")])]
    warn = (
        "Importance covers the space that was searched and nothing else: a range that is too wide makes a setting look "
        "important, one that was chosen well makes it look like nothing, and trials that broke or were ended early do "
        "not count."
    )
    blocks.append(Words(warn, "warn"))
    if found.shares is not None and found.surface is not None:
        sure = found.explained
        tone: Tone = "good" if sure >= TRUSTED else "warn"
        text = f"The fitted surface explains {percent(max(0.0, sure))} of the variance of trials it was not shown"
        blocks.append(Words(f"{text}." if sure >= TRUSTED else f"{text}: read its shares as a guess.", tone))
        bars = [
            Bars("alone", [100 * x for x in found.shares.alone]),
            Bars("with others", [100 * x for x in found.shares.total]),
        ]
        order = sorted(range(len(names)), key=lambda at: -found.total[names[at]])
        bars = [Bars(one.name, [one.values[at] for at in order]) for one in bars]
        title = "Share of the variance over the whole space (fANOVA)"
        svg = bar_chart(
            [names[at] for at in order], bars, title=title, value_label="per cent of the variance", level=True
        )
        blocks.append(
            Chart(
                "importance", svg, "What would stay unknown without a setting: alone, and together with others.", title
            )
        )
    if top:
        order_top = sorted(top, key=lambda name: -top[name])
        title = "For being among the best tenth (PED-ANOVA)"
        svg = bar_chart(
            order_top, [Bars("", [100 * top[n] for n in order_top])], title=title, value_label="per cent", level=True
        )
        blocks.append(
            Chart("importance_top", svg, "How far the best trials' values differ from all trials' values.", title)
        )
    rows: list[list[Value]] = [
        [
            name,
            found.shares.alone[at] if found.shares else None,
            found.shares.total[at] if found.shares else None,
            top.get(name),
        ]
        for at, name in enumerate(names)
    ]
    blocks.append(Grid("importance", ["setting", "fANOVA alone", "fANOVA with others", "PED-ANOVA"], rows))
    blocks += interactions(found, names)
    return [Section("Importance", blocks)]


def interactions(found: Mattered, names: list[str]) -> list[Block]:
    """What pairs explain beyond both alone."""
    if found.shares is None or len(names) < 2 or found.explained <= 0:
        return []
    pairs = found.shares.pairs
    values = [
        [100 * pairs[(min(a, b), max(a, b))] if a != b else math.nan for b in range(len(names))]
        for a in range(len(names))
    ]
    title = "Interactions: per cent of the variance that two settings explain only together"
    (a, b), most = max(pairs.items(), key=lambda item: item[1])
    words = (
        f"Strongest: {names[a]} with {names[b]}, {percent(most)}: the best value of one depends on the "
        "other, so tune them together."
        if most > 0.03
        else "No pair matters much beyond its parts: settings may be tuned one by one."
    )
    return [Chart("interactions", heat_map(names, names, values, title=title), words, title)]
