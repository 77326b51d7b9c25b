"""The section that shows every configuration through all settings: parallel coordinates.  Pure."""

import math

from tunelab.charts.parallel import Upright, number_ticks, parallel
from tunelab.effects.setting import Setting, is_number, told
from tunelab.report.blocks import Chart, Section
from tunelab.report.mattered import Mattered
from tunelab.report.words import shown


def all_at_once(found: Mattered) -> list[Section]:
    """Parallel coordinates."""
    study, settings = found.study, found.settings[:10]
    if len(study.points) < 3 or not settings:
        return []
    costs = [point.cost for point in study.points]
    middle = sorted(costs)[(3 * len(costs)) // 4]
    span = max(middle - costs[0], 1e-300)
    worth = [max(0.0, 1 - (cost - costs[0]) / span / 1.3) for cost in costs]
    axes = [axis(one, found) for one in settings]
    values = [study.value(min(cost, middle)) for cost in costs]
    low, high = min(values), max(values)
    places = [(v - low) / (high - low) if high > low else 0.5 for v in values]
    axes.append(Upright(study.score, places, number_ticks(low, high, log=False)))
    said = [
        f"trial {point.numbers[0]}: {study.score} {shown(study.value(point.cost))}; "
        + ", ".join(f"{k}={told(v)}" for k, v in point.params.items())
        for point in study.points
    ]
    title = "All settings at once"
    svg = parallel(axes, worth, [str(p.numbers[0]) for p in study.points], said, title=title)
    words = (
        "Filter the table of configurations above, and the lines that do not fit fade. "
        "The worst quarter ends at the end of its axis."
    )
    return [Section("All settings at once", [Chart("parallel", svg, words, title)])]


def axis(setting: Setting, found: Mattered) -> Upright:
    """A setting as an upright axis."""
    held = [point.params.get(setting.name) for point in found.study.points]
    if setting.numeric and all(is_number(v) and (not setting.log or v > 0) for v in held if v is not None):
        places = [setting.unit(float(v)) if v is not None else math.nan for v in held]
        return Upright(setting.name, places, number_ticks(setting.low, setting.high, log=setting.log))
    labels = list(dict.fromkeys(str(v) for v in held if v is not None))
    spots = {label: (at + 0.5) / len(labels) for at, label in enumerate(labels)}
    return Upright(
        setting.name, [spots.get(str(v), math.nan) for v in held], [(spot, label) for label, spot in spots.items()]
    )
