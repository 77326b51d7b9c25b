"""The head of a study's report: the best, the ranked table and the history.  Pure."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.effects.points import Point, Trial
from tunelab.effects.setting import told
from tunelab.report.blocks import Card, Cards, Chart, Grid, Section, Value, Verdicts, Words
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, duration, listed, plain_cell, shown

DRAWS = 4000  # of noise, for the chance of being the best
Z = 1.96


def overview(study: StudyFacts) -> Section:
    """The section: what was found, in a few numbers and sentences."""
    done = [trial for trial in study.trials if trial.done]
    states = Counter(trial.state for trial in study.trials)
    kind = "trial" if study.study else "run"
    seconds = [trial.seconds for trial in study.trials if trial.seconds is not None]
    cards = []
    if study.best:
        of = study.trial(study.best.numbers[0]).name
        cards.append(Card(f"best {study.score}", shown(study.value(study.best.cost)), of))
    note = ", ".join(f"{many} {state}" for state, many in states.items())
    cards.append(Card(f"{kind}s", f"{len(study.trials):,}", note))
    cards.append(Card("configurations", f"{len(study.points):,}", "seeds counted once"))
    cards.append(
        Card("settings that varied", str(len(study.settings)), listed([one.name for one in study.settings], 3))
    )
    if seconds:
        cards.append(Card("training time", duration(sum(seconds)), f"{duration(sum(seconds) / len(seconds))} each"))
    lines: list[Words] = []
    if study.best and study.best.params:
        at = ", ".join(f"{name}={told(value)}" for name, value in study.best.params.items())
        lines.append(Words(f"Best of {counted(len(study.points), 'configuration')}: {at}.", "good"))
    lines += against_default(study)
    lines += judged(study)
    if len(study.objectives) > 1:
        lines.append(
            Words(
                f"The search has {len(study.objectives)} objectives; this report follows the first, {study.score}.",
                "warn",
            )
        )
    if not done:
        lines.append(Words("No trial left a score; the reasons are in the table of trials.", "bad"))
    lines += [Words(f"{text}.", "warn") for text in study.missing]
    return Section("In short", [Cards(cards), Verdicts(lines)])


def against_default(study: StudyFacts) -> list[Words]:
    """What the search gained over the configuration that one would have used without it."""
    default = next((t for t in study.trials if t.origin == "default" and t.done), None)
    if default is None or study.best is None:
        return []
    gain = (default.value or 0.0) * (1 if study.lower else -1) - study.best.cost
    if default.number in study.best.numbers:
        return [Words("Nothing beat the configuration that was there without a search.", "warn")]
    text = f"It is {shown(gain)} better than the configuration without a search (trial {default.number})"
    if math.isnan(study.noise):
        return [Words(f"{text}; how much two seeds differ is not known, so that may be luck.", "warn")]
    clear = gain > 2 * math.sqrt(2) * study.noise
    return [Words(f"{text}, {gain / study.noise:.2g} times what two seeds differ by.", "good" if clear else "warn")]


def judged(study: StudyFacts) -> list[Words]:
    """The winner on the test split, and how often that split was looked at."""
    scores = (study.summary.get("test") or {}).get("scores") or {}
    found = {name: value for name, value in scores.items() if name.startswith("test/")}
    if not found:
        return []
    told_of = ", ".join(f"{name.removeprefix('test/')} {shown(value)}" for name, value in list(found.items())[:5])
    looks = int(study.summary.get("test_looks") or 0)
    lines = [Words(f"On the test split the winner reaches {told_of}.", "plain")]
    if looks > 1:
        lines.append(
            Words(f"The test split was looked at {looks} times: its scores are that much less honest.", "warn")
        )
    return lines


def ranked(study: StudyFacts) -> Section:
    """The table of configurations, with the confidence in each."""
    names = [one.name for one in study.settings]
    chances = chance_best(study.points, study.noise)
    rows: list[list[Value]] = []
    for place, point in enumerate(study.points):
        half = Z * study.noise / math.sqrt(len(point.costs))
        ends = sorted((study.value(point.cost - half), study.value(point.cost + half)))
        known = not math.isnan(study.noise)
        rows.append(
            [place + 1, ", ".join(map(str, point.numbers)), study.value(point.cost), len(point.costs),
             ends[0] if known else None, ends[1] if known else None, chances[place],
             *(plain_cell(point.params.get(name)) for name in names)]
        )  # fmt: skip
    words = "Configurations, the best first; over several seeds the mean."
    words += (
        f" The 95 % interval and the chance to be the best come from how much seeds differ ({shown(study.noise)})."
        if not math.isnan(study.noise)
        else " No configuration was run with two seeds, so nothing tells how far luck goes."
    )
    columns = ["rank", "trial", study.score, "seeds", "low", "high", "p(best)", *names]
    keys = [str(point.numbers[0]) for point in study.points]
    grid = Grid("ranked", columns, rows, words, keys=keys, strong=frozenset({0} if rows else ()))
    return Section("Ranked", [grid], "Rows within the noise of the first are as good as it, for all that is known.")


def chance_best(found: Sequence[Point], noise: float) -> list[float | None]:
    """How often each would be the best if every score were drawn again with the seeds' noise."""
    if math.isnan(noise) or not found:
        return [None] * len(found)
    centre = np.array([point.cost for point in found])
    spread = noise / np.sqrt(np.array([len(point.costs) for point in found]))
    draws = np.random.default_rng(0).normal(centre, spread, (DRAWS, len(found)))
    wins = np.bincount(draws.argmin(axis=1), minlength=len(found))
    return [float(win) / DRAWS for win in wins]


def all_trials(study: StudyFacts) -> Section:
    """Every trial as it ended."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    rows: list[list[Value]] = [
        [
            t.number,
            t.name,
            t.state,
            t.value,
            t.seconds,
            t.kind or None,
            t.reason or None,
            *(plain_cell(t.params.get(n)) for n in names),
        ]
        for t in study.trials
    ]
    columns = ["number", "name", "state", study.score, "seconds", "kind", "reason", *names]
    keys = [str(trial.number) for trial in study.trials]
    return Section("Trials", [Grid("trials", columns, rows, "Every trial in the order it was started.", keys=keys)])


def history(study: StudyFacts) -> list[Section]:
    """The best so far, trial by trial."""
    done = [trial for trial in study.trials if trial.done]
    if len(done) < 2:
        return []
    best, so_far = math.inf, []
    for trial in done:
        best = min(best, (trial.value or 0.0) * (1 if study.lower else -1))
        so_far.append(study.value(best))
    xs = [float(trial.number) for trial in done]
    every = [(float(trial.number), float(trial.value or 0.0)) for trial in cut_off(study, done)]
    series = [Series("best so far", xs, so_far, points=every)]
    title = "History"
    svg = line_chart(series, title=title, x_label="trial", y_label=study.score)
    last = next(x for x, value in zip(xs, so_far, strict=True) if value == so_far[-1])
    hidden = len(done) - len(every)
    words = f"Each ring is a trial. The best came at trial {last:g} of {xs[-1]:g}."
    words += f" {counted(hidden, 'trial')} far off are left out." * bool(hidden)
    return [Section("History", [Chart("history", svg, words, title)])]


def cut_off(study: StudyFacts, done: Sequence[Trial]) -> list[Trial]:
    """Trials without those so bad that they would flatten the drawing."""
    costs = np.array([(t.value or 0.0) * (1 if study.lower else -1) for t in done])
    low, high = np.quantile(costs, [0.25, 0.75])
    limit = high + 4 * (high - low) if high > low else math.inf
    return [trial for trial, cost in zip(done, costs, strict=True) if cost <= limit]
