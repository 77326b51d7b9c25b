"""The verdict on a run: good or not, against what, and its final scores in one table.  Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunelab.analysis.row_scores import RowScore
from tunelab.analysis.statistics import ScoreInterval, paired_bootstrap, score_interval
from tunelab.language.score_names import ScoreName, score_label
from tunelab.language.translation import message, messages, translate
from tunelab.report.baselines import Baseline, trivial_baseline
from tunelab.report.document import CellValue, Table, Tone, Verdict
from tunelab.report.formatting import format_cell, format_count
from tunelab.report.run_reader import RunResults
from tunelab.runs.atomic_files import Row
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.run_status import PREEMPTED
from tunelab.tasks.metrics.directions import metric_direction

STATUS_TONES: dict[str, Tone] = {
    "finished": "good", "early-stopped": "good", "running": "plain", "pruned": "plain", PREEMPTED: "warn",
    "diverged": "bad", "failed": "bad", "unknown": "warn",
}  # fmt: skip
STATUS_NAMES = messages("finished", "early-stopped", "running", "pruned", "pre-empted", "diverged", "failed", "unknown")
BOOTSTRAP_DRAWS = 500  # enough for two digits of an interval
SAME_SCORE = 1e-3  # how far a recorded score may be from that of its predictions, which are rounded
ROW_SCORE_NAMES = {"reward_accuracy": "accuracy", "reward_margin": "margin"}  # as predictions give them
SPLIT_ORDER = ("test", "val", "base", "last", "train")  # in which the table has them, the others after these
SPLIT_WORDS = {"base": message("before training (test)"), "last": message("last checkpoint (val)")}


@dataclass(frozen=True)
class Comparison:
    """The score that a run is judged by, beside that of one baseline.

    Attributes:
        against: The baseline, as in a sentence.
        value: The score of the baseline.
        gain: By how much the run is better; below 0 where it is worse.
        known: Whether the noise of the rows is known.
        clear: Whether the difference is beyond that noise.
        low, high: The 95 % interval of the gain; nan where it is unknown.
    """

    against: str
    value: float
    gain: float
    known: bool = False
    clear: bool = False
    low: float = math.nan
    high: float = math.nan


def judged_split(run: RunResults) -> str:
    """The split whose scores the verdict is on: test, or validation where nothing was tested."""
    return "test" if any(name.startswith("test/") for name in run.scores) else "val"


def baselines(run: RunResults) -> list[Baseline]:
    """What the run is compared with: the model before training where it was evaluated, and the task's trivial one."""
    base = {
        name.removeprefix("base/"): value
        for name, value in run.scores.items()
        if name.startswith("base/") and math.isfinite(value)
    }
    phrase = translate("the model before training")
    known = [Baseline("model before training", phrase, base, run.base_predictions)] if base else []
    try:
        trivial = trivial_baseline(run, judged_split(run))
    except (KeyError, TypeError, ValueError, ArithmeticError):  # predictions of another shape
        trivial = None
    return [*known, *([trivial] if trivial else [])]


def judged_score(run: RunResults, others: Sequence[Baseline]) -> str:
    """The bare name of the score that decides: the first headline score that a baseline has too; empty without any."""
    split = judged_split(run)
    names = [*run.description.headline_scores, run.monitor.rpartition("/")[2]]
    scored = [name for name in names if math.isfinite(run.scores.get(f"{split}/{name}", math.nan))]
    shared = [name for name in scored if any(name in other.scores for other in others)]
    return next(iter([*shared, *scored]), "")


def compare_with(run: RunResults, name: str, baseline: Baseline) -> Comparison:
    """The run beside one baseline by one score, over the rows of both where they are known."""
    value, other = run.scores[f"{judged_split(run)}/{name}"], baseline.scores[name]
    sign = -1 if metric_direction(name) == "min" else 1
    gain = sign * (value - other)
    ours, theirs = score_pair(run, name, baseline.rows) if judged_split(run) == "test" else (None, None)
    if ours is None or theirs is None or ours.rows < 2:
        return Comparison(baseline.phrase, other, gain)
    paired = paired_bootstrap(theirs, ours, draws=BOOTSTRAP_DRAWS)
    ends = sorted((sign * paired.low, sign * paired.high))
    return Comparison(baseline.phrase, other, gain, known=True, clear=paired.differs, low=ends[0], high=ends[1])


def score_pair(run: RunResults, name: str, rows: Sequence[Row]) -> tuple[RowScore | None, RowScore | None]:
    """One score of the run and of other predictions over the rows that both have; None where it cannot be computed."""
    others = {row["row"]: row for row in rows}
    shared = [row for row in run.predictions if row["row"] in others]
    bare = ROW_SCORE_NAMES.get(name, name)
    ours = run.row_scores(shared).get(bare) if shared else None
    theirs = run.row_scores([others[row["row"]] for row in shared]).get(bare) if shared else None
    return ours, theirs


def run_verdicts(run: RunResults) -> Iterator[Verdict]:
    """How the run ended where that is no good end, and whether its model is good."""
    if STATUS_TONES.get(run.status, "warn") != "good":
        yield Verdict(ending(run), STATUS_TONES.get(run.status, "warn"))
    yield model_verdict(run)


def ending(run: RunResults) -> str:
    """How the run ended, and why."""
    reason = f": {run.manifest['reason']}" if run.manifest.get("reason") else ""
    count = int(run.curves[-1].get("step", 0)) + 1 if run.curves else 0
    steps = format_count(count, "step")
    if run.status == "unknown":
        return translate("How the run ended is not recorded; it logged {steps}.", steps=steps)
    if run.status == "running" and not RunDirectory(run.root).is_held():
        return translate(
            "The run says running, and its process is gone: it was killed, or the machine went down, after {steps}.",
            steps=steps,
        )
    return translate(
        "The run is {status} after {steps}{reason}.", status=translate(run.status), steps=steps, reason=reason
    )


def model_verdict(run: RunResults) -> Verdict:
    """Whether the model is good, against what."""
    others = baselines(run)
    name = judged_score(run, others)
    if not name and run.status == "running":
        return Verdict(translate("Not judged yet: final scores are computed when training ends."), "plain")
    if not name:
        return Verdict(translate("Nothing says whether the model is good: the run left no final score."), "warn")
    value = score_phrase(run, name)
    compared = [compare_with(run, name, other) for other in others if name in other.scores]
    if not compared:
        text = translate(
            "Not judged: {value}, and no baseline to compare it with (eval.base=true evaluates the model before "
            "training).",
            value=value,
        )
        return Verdict(text, "plain")
    hardest = min(compared, key=lambda one: one.gain)
    if hardest.gain < 0 or (not hardest.gain and not hardest.known):
        listed = translate("; ").join(against(one) for one in sorted(compared, key=lambda one: one.gain))
        if hardest.gain:
            return Verdict(
                translate("Not good: {value} is worse than {baselines}.", value=value, baselines=listed), "bad"
            )
        return Verdict(
            translate("Not good: {value} is no better than {baselines}.", value=value, baselines=listed), "bad"
        )
    listed = translate(" and ").join(
        translate("{score} for {baseline}", score=format_cell(one.value), baseline=one.against) for one in compared
    )
    value = translate("{value}, against {baselines}", value=value, baselines=listed)
    if hardest.known and not hardest.clear:
        text = translate(
            "Not proven: {value}. The gain over {baseline} is within noise (95 % of the difference: {low} to {high}).",
            value=value,
            baseline=hardest.against,
            low=format_cell(hardest.low),
            high=format_cell(hardest.high),
        )
        return Verdict(text, "warn")
    if worse := worse_scores(run, name, others):
        return Verdict(
            translate("Mixed: {value}; but {worse}.", value=value, worse=translate(" and ").join(worse)), "warn"
        )
    value = translate("{value}.", value=value[:1].upper() + value[1:])
    if not hardest.known:
        value += " " + translate("Whether that is beyond noise is not known: the rows of both are needed.")
    return Verdict(value, "good")


def score_phrase(run: RunResults, name: str) -> str:
    """A score of the judged split with its interval, where it has one."""
    split = judged_split(run)
    value = f"{split} {score_label(name)} {format_cell(run.scores[f'{split}/{name}'])}"
    interval, _ = confidence_interval(run, name) if split == "test" else (None, "")
    if interval is None:
        return value
    ends = {"low": format_cell(interval.low), "high": format_cell(interval.high)}
    return translate(
        "{value} (95 %: {low} to {high} over {rows:,} [row|rows])", value=value, rows=len(run.predictions), **ends
    )


def against(comparison: Comparison) -> str:
    """A baseline with its score, in words."""
    return f"{comparison.against} ({format_cell(comparison.value)})"


def worse_scores(run: RunResults, judged: str, others: Sequence[Baseline]) -> list[str]:
    """The other headline scores by which a baseline is better, in words."""
    split, lines = judged_split(run), []
    for name in run.description.headline_scores:
        value = run.scores.get(f"{split}/{name}", math.nan)
        known = [other for other in others if name in other.scores] if math.isfinite(value) else []
        if name != judged and known:
            hardest = min((compare_with(run, name, other) for other in known), key=lambda one: one.gain)
            if hardest.gain < 0:
                score = f"{score_label(name)} {format_cell(value)}"
                lines.append(translate("{score} is worse than {baseline}", score=score, baseline=against(hardest)))
    return lines


def confidence_interval(run: RunResults, name: str) -> tuple[ScoreInterval | None, str]:
    """The 95 % interval of a test score, or why it has none; neither where its rows are not known."""
    score = run.test_row_scores.get(ROW_SCORE_NAMES.get(name, name))
    known = run.scores.get(f"test/{name}")
    if score is None or known is None or score.rows < 2:
        return None, ""
    if not math.isclose(score.value, known, rel_tol=SAME_SCORE, abs_tol=SAME_SCORE):
        return None, translate("no interval: the predictions give {value}", value=format_cell(score.value))
    interval = score_interval(score, draws=BOOTSTRAP_DRAWS)
    return (None, translate("no interval: {reason}", reason=interval.reason)) if interval.reason else (interval, "")


def interval_cell(run: RunResults, name: str) -> str:
    """The interval of a test score as the cell of a table, or the reason why it has none."""
    interval, reason = confidence_interval(run, name)
    return (
        reason
        if interval is None
        else translate("{low} to {high}", low=format_cell(interval.low), high=format_cell(interval.high))
    )


def scores_table(run: RunResults) -> Table:
    """Every final score: a row each, test and validation first, the trivial baseline beside them."""
    names = list(dict.fromkeys(name.rpartition("/")[2] for name in run.scores))
    heads = [*run.description.headline_scores, run.monitor.rpartition("/")[2], "loss"]
    names.sort(key=lambda name: heads.index(name) if name in heads else len(heads))
    recorded = list(dict.fromkeys(name.rpartition("/")[0] for name in run.scores))
    splits = [
        *(split for split in SPLIT_ORDER if split in recorded),
        *(one for one in recorded if one not in SPLIT_ORDER),
    ]
    trivial = next((one for one in baselines(run) if one.name != "model before training"), None)
    intervals = {name: interval_cell(run, name) for name in names} if "test" in splits else {}
    heading = messages("score")
    columns: list[dict[str, CellValue]] = []
    for split in splits:
        heading.append(SPLIT_WORDS.get(split, split))
        columns.append({name: run.scores.get(f"{split}/{name}") for name in names})
        if split == "test" and any(intervals.values()):
            heading.append(translate("95 % interval over {rows}", rows=format_count(len(run.predictions), "row")))
            columns.append({name: text or None for name, text in intervals.items()})
        if split == judged_split(run) and trivial:
            heading.append(trivial.name)
            columns.append(dict(trivial.scores))
    rows: list[list[CellValue]] = [[ScoreName(name), *(column.get(name) for column in columns)] for name in names]
    judged = judged_score(run, baselines(run))
    strong = frozenset(at for at, name in enumerate(names) if name == judged)
    words = translate("Final scores of the best checkpoint.")
    words += translate(" The score of the verdict is marked.") if judged else ""
    return Table("scores", heading, rows, words, highlighted_rows=strong)
