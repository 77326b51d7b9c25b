"""The section on a run's curves: loss, other scores, rate, gradient norms, speed.  Pure."""

import math
from collections.abc import Mapping, Sequence

from tunelab.charts.line import line_chart
from tunelab.charts.series import Mark, Series
from tunelab.charts.ticks import Kind
from tunelab.effects.learning import Learning, judge_curve
from tunelab.report.blocks import Block, Chart, Section, Words
from tunelab.report.run_facts import RunFacts

Points = tuple[list[float], list[float]]  # steps done, values
SPREAD = 20.0  # ratio of the largest to the smallest value from which on a log scale shows more
SPEED = ("train/tokens_per_second", "train/samples_per_second")


def points(rows: Sequence[Mapping[str, float]], name: str) -> Points:
    """One score over the steps done; the file counts from 0."""
    found = [(row["step"] + 1, row[name]) for row in rows if name in row and "step" in row]
    return [step for step, _ in found], [value for _, value in found]


def curves(run: RunFacts) -> Section:
    """The section."""
    if not run.curves:
        return Section("Curves", [Words("The run left no curves: metrics.csv is missing or empty.", "soft")])
    names = list(dict.fromkeys(name for row in run.curves for name in row if name not in ("step", "epoch")))
    best = [Mark(float(run.best["step"]), "best")] if run.best.get("step") else []
    blocks: list[Block] = []
    blocks += both(run, "loss", best)
    scores = sorted({name.partition("/")[2] for name in names if name.startswith("val/")} - {"loss"})
    for score in scores:
        blocks += both(run, score, best)
    for name, words in (
        ("train/lr", "The learning rate that the schedule gave at each step."),
        ("train/grad_norm", "Length of the gradient before clipping: spikes and growth announce divergence."),
        *((speed, "Dips tell of waiting for data, or of another program on the machine.") for speed in SPEED),
    ):
        xs, ys = points(run.curves, name)
        if xs:
            blocks.append(one(name, [Series(name, xs, ys)], words, best if name == "train/grad_norm" else ()))
    return Section("Curves", blocks)


def both(run: RunFacts, score: str, best: Sequence[Mark]) -> list[Block]:
    """A score of training and validation in one drawing; nothing where neither was logged."""
    found = [(name, points(run.curves, name)) for name in (f"train/{score}", f"val/{score}")]
    series = [Series(name, xs, ys) for name, (xs, ys) in found if xs]
    return [one(f"val/{score}", series, "", best)] if series else []


def one(name: str, series: Sequence[Series], words: str, marks: Sequence[Mark]) -> Chart:
    """A drawing over the steps."""
    title = " and ".join(line.name for line in series)
    scale = scale_of([value for line in series for value in line.ys])
    label = name.rpartition("/")[2]
    svg = line_chart(series, title=title, x_label="optimizer steps", y_label=label, y_scale=scale, marks=marks)
    return Chart("curve_" + name.replace("/", "_"), svg, words, title)


def scale_of(values: Sequence[float]) -> Kind:
    """A log scale where values are above 0 and far apart."""
    good = [value for value in values if math.isfinite(value)]
    return "log" if good and min(good) > 0 and max(good) / min(good) > SPREAD else "linear"


def learning(run: RunFacts) -> Learning:
    """The verdict on the followed score, against the training loss."""
    name = run.monitor or "val/loss"
    steps, values = points(run.curves, name)
    train_steps, losses = points(run.curves, "train/loss")
    return judge_curve(steps, values, train_steps, losses, lower=run.lower if run.monitor else True, name=name)
