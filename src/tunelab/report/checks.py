"""The section of checks: borders, cliffs, noise, budget and learning curves.  Pure."""

import math
from collections import Counter

from tunelab.charts.line import line_chart
from tunelab.charts.series import Series
from tunelab.effects.edges import Cliff, Edge, cliffs, edges
from tunelab.effects.enough import best_of
from tunelab.effects.learning import judge_curve
from tunelab.effects.setting import told
from tunelab.report.blocks import Block, Chart, Grid, Section, Tone, Value, Verdicts, Words
from tunelab.report.mattered import Mattered
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, percent, shown

CURVES = 5  # best trials whose curves are judged
LOST = 0.2  # share of trials that broke from which on it is told


def checks(found: Mattered) -> list[Section]:
    """The section."""
    study = found.study
    if not study.points:
        return []
    lines = [*border_words(study), *cliff_words(study), *lost_words(study), *noise_words(study)]
    blocks: list[Block] = [Verdicts(lines), *enough(study), *curves(study)]
    return [Section("Checks", blocks, "What to look at before believing the ranking.")]


def edges_of(study: StudyFacts) -> list[Edge]:
    """Borders that the best stands at."""
    return edges(study.settings, study.points)


def cliffs_of(study: StudyFacts) -> list[Cliff]:
    """Where runs break next to the best."""
    return cliffs(study.settings, study.trials, lower=study.lower)


def border_words(study: StudyFacts) -> list[Words]:
    """The edge check; by how much to widen stands under what to run next."""
    found = edges_of(study)
    if len(study.points) < 4:
        return [Words("Too few configurations to tell whether the best stands at a border.")]
    lines = [
        Words(
            f"{one.setting.name}: the best value {told(one.value)} stands at the {one.side} border of what was "
            f"{'searched' if one.setting.declared else 'tried'} ({told(one.setting.low)} to {told(one.setting.high)}): "
            "a better one may lie beyond.",
            "warn",
        )
        for one in found
    ]
    return lines or [Words("No setting's best value stands at a border of its range.", "good")]


def cliff_words(study: StudyFacts) -> list[Words]:
    """Where runs break next to the best."""
    return [
        Words(
            f"{one.setting.name}: all {one.broken} runs {one.side} {told(one.limit)} broke, and the best "
            f"({told(one.value)}) is close to that. A longer warm-up (scheduler.warmup) or a lower "
            "trainer.gradient_clip_val may move the limit; else stay clear of it.",
            "warn",
        )
        for one in cliffs_of(study)
    ]


def lost_words(study: StudyFacts) -> list[Words]:
    """Trials that left nothing."""
    failed = [trial for trial in study.trials if trial.state == "failed"]
    if not failed:
        return []
    kinds = ", ".join(f"{many} {kind or 'failed'}" for kind, many in Counter(t.kind for t in failed).most_common())
    share = len(failed) / len(study.trials)
    text = f"{len(failed)} of {len(study.trials)} trials left no score ({kinds})"
    if share >= LOST:
        return [Words(f"{text}: part of the space cannot be trained, and the rankings know nothing of it.", "warn")]
    return [Words(f"{text}.")]


def noise_words(study: StudyFacts) -> list[Words]:
    """The seeds' noise against the differences."""
    if math.isnan(study.noise):
        text = "No configuration was run with two seeds, so it is not known how far luck goes; tunelab confirm tells."
        return [Words(text, "warn")]
    gaps = [point.cost - study.points[0].cost for point in study.points]
    alike = (
        sum(
            gap <= 2 * study.noise * math.sqrt(1 / len(study.points[0].costs) + 1 / len(point.costs))
            for gap, point in zip(gaps, study.points, strict=True)
        )
        - 1
    )
    text = f"Seeds of one configuration differ by {shown(study.noise)} (standard deviation)"
    if not alike:
        return [Words(f"{text}; the best is ahead of all others by more than that explains.", "good")]
    return [Words(f"{text}: {counted(alike, 'configuration')} cannot be told from the best.", "warn")]


def enough(study: StudyFacts) -> list[Block]:
    """Was the budget enough: the best of n."""
    if len(study.points) < 6:
        return [Words("Too few configurations to tell whether more of them would pay.", "soft")]
    found = best_of([point.cost for point in study.points])
    text, tone = enough_words(study)
    values = [study.value(value) for value in found.mean]
    low, high = [study.value(v) for v in found.low], [study.value(v) for v in found.high]
    title = "Best of n trials"
    kept = [at for at in range(len(values)) if math.isfinite(values[at]) and (at or len(values) < 4)]
    series = Series(
        "expected best", [float(found.counts[at]) for at in kept], [values[at] for at in kept],
        [min(low[at], high[at]) for at in kept], [max(low[at], high[at]) for at in kept],
    )  # fmt: skip
    svg = line_chart([series], title=title, x_label="configurations tried", y_label=f"best {study.score}")
    words = (
        "Expected, with the middle 90 %: what n of these trials, drawn at random, would have found. "
        "A search that learns does better with its later ones."
    )
    return [Verdicts([Words(text, tone)]), Chart("best_of_n", svg, words, title)]


def enough_words(study: StudyFacts) -> tuple[str, Tone]:
    """The verdict on the budget."""
    gain = best_of([point.cost for point in study.points]).late_gain
    text = f"The second half of the {len(study.points)} configurations is worth {shown(gain)} in expectation"
    if gain == 0:
        return f"{text}: the budget was enough for this space.", "good"
    if math.isnan(study.noise):
        costs = sorted(point.cost for point in study.points)
        middle = costs[len(costs) // 2] - costs[0]
        small = gain < 0.05 * middle
        told_of = f"{percent(gain / middle)} of the gap between the best and the middle one" if middle else "nothing"
        end = "more of them would find little" if small else "more of them may pay"
        return f"{text}, {told_of}: {end}.", "good" if small else "warn"
    if gain < study.noise:
        return (
            f"{text}, less than seeds differ by ({shown(study.noise)}): the budget was enough for this space.",
            "good",
        )
    return f"{text}, more than seeds differ by ({shown(study.noise)}): more of them may pay.", "warn"


def curves(study: StudyFacts) -> list[Block]:
    """Learning curves of the best, with a verdict on each."""
    best = [study.trial(point.numbers[0]) for point in study.points[:CURVES]]
    rows: list[list[Value]] = []
    series = []
    for trial in best:
        steps, values = [step for step, _ in trial.curve], [value for _, value in trial.curve]
        judged = judge_curve(steps, values, lower=study.lower, name=study.score)
        rows.append([trial.name, trial.value, len(values), judged.kind, " ".join(text for _, text in judged.verdicts)])
        if len(values) > 1:
            series.append(Series(trial.name, steps, values))
    blocks: list[Block] = [curve_words([str(row[3]) for row in rows])]
    if series:
        title = "Learning curves of the best"
        blocks.append(
            Chart(
                "learning_curves",
                line_chart(series, title=title, x_label="validation at", y_label=study.score),
                "",
                title,
            )
        )
    columns = ["trial", study.score, "validations", "verdict", "in words"]
    blocks.append(Grid("learning", columns, rows, "Verdicts on the curves of the best."))
    return blocks


def curve_words(kinds: list[str]) -> Words:
    """What the curves of the best say together."""
    many, known = Counter(kinds), len(kinds) - kinds.count("unknown")
    if not known:
        return Words(
            "The best trials were validated too seldom to judge their curves: "
            "trainer.val_check_interval=0.25 gives more.",
            "warn",
        )
    if many["improving"] * 2 > known:
        return Words(
            f"{many['improving']} of the {known} best were still getting better at their end: longer runs may "
            "pay (max_epochs).",
            "warn",
        )
    if (many["over-fitted"] + many["worsened"] + many["early"]) * 2 > known:
        return Words(
            "Most of the best were past their best step at their end: shorter runs or more regularization would do.",
            "warn",
        )
    return Words("The best have settled: the length of the runs fits.", "good")
