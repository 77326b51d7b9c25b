"""The results of a study: ranking, trials.jsonl, study.csv, study.json and best.yaml, elapsed time, and the deletion of
checkpoints that are not among the best.
"""

import csv
import io
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunelab.language.translation import message
from tunelab.runs.atomic_files import json_text, write_text_if_changed
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.pbt import GENERATION
from tunelab.search.suggest import counted_trials, was_tried

STATE_WORDS = {  # as in trials.jsonl; translated where they are printed
    TrialState.COMPLETE: message("complete"),
    TrialState.PRUNED: message("pruned"),
    TrialState.FAIL: message("failed"),
}


def trial_record(trial: FrozenTrial) -> dict[str, Any]:
    """A finished trial as one line of trials.jsonl."""
    facts = trial.user_attrs
    values = list(trial.values or [])
    return {
        "number": trial.number,
        "state": STATE_WORDS[trial.state],
        "params": trial.params,
        "overrides": facts.get("overrides", []),
        "value": values[0] if len(values) == 1 else None,
        "values": values,
        "seconds": facts.get("seconds"),
        "origin": facts.get("origin", "sampler"),
        "kind": facts.get("kind") or None,
        "reason": facts.get("reason") or None,
        "excess": facts.get("excess"),
        "curve": {str(step): value for step, value in trial.intermediate_values.items()},
        "scores": facts.get("scores", {}),
    }


def rank_trials(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Complete trials within the constraints, best first; with several objectives, the Pareto front."""
    complete = [t for t in trials if t.state is TrialState.COMPLETE and max(t.user_attrs.get("excess") or [0.0]) <= 0]
    signs = [-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions]

    def costs(trial: FrozenTrial) -> tuple[float, ...]:
        return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))

    ordered = sorted(complete, key=lambda trial: (costs(trial), trial.number))
    if len(signs) == 1:
        return ordered
    return [t for t in ordered if not any(dominates(costs(other), costs(t)) for other in complete)]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs are nowhere higher and somewhere lower (Pareto dominance)."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def write_results(
    folder: StudyFolder,
    trials: Sequence[FrozenTrial],
    directions: Sequence[StudyDirection],
    *,
    objectives: Sequence[str],
    best_config: Callable[[FrozenTrial], str],
    facts: Mapping[str, Any],
) -> None:
    """Write trials.jsonl, study.csv, study.json and best.yaml, each atomically.

    Args:
        folder: The study's files.
        trials: Every trial of the study.
        directions: Directions of the objectives.
        objectives: Names of the objectives.
        best_config: The text of best.yaml for a trial.
        facts: Further entries of study.json.
    """
    ended = [trial for trial in trials if trial.state.is_finished() and was_tried(trial)]
    lines = [trial_record(trial) for trial in ended]
    write_text_if_changed(folder.trials, "".join(json.dumps(line) + "\n" for line in lines))
    write_text_if_changed(folder.table, results_csv(lines))
    best = rank_trials(ended, directions)
    states = Counter(STATE_WORDS[trial.state] for trial in counted_trials(ended))
    running = sum(trial.state is TrialState.RUNNING for trial in trials)
    summary = {
        "best_trial": best[0].number if best else None,
        "best_value": best[0].values[0] if best and len(directions) == 1 else None,
        "best_values": list(best[0].values) if best else None,
        "best_params": best[0].params if best else None,
        "front": [trial.number for trial in best] if len(directions) > 1 else None,
        "objectives": list(objectives),
        "directions": [direction.name.lower() for direction in directions],
        "counts": {**{word: states.get(word, 0) for word in STATE_WORDS.values()}, "running": running},
        "failures": dict(Counter(line["kind"] for line in lines if line["state"] == "failed")),
        **facts,
    }
    write_text_if_changed(folder.summary, json_text(summary))
    if best:
        write_text_if_changed(folder.best, best_config(best[0]))


def results_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """The finished trials as CSV: a column for each setting and each score."""
    params = sorted({name for line in lines for name in line["params"]})
    scores = sorted({name for line in lines for name in line["scores"]})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["number", "state", "value", "seconds", "kind", *params, *scores])
    for line in lines:
        value = line["value"] if line["value"] is not None else " ".join(map(str, line["values"]))
        cells = [line["params"].get(name) for name in params] + [line["scores"].get(name) for name in scores]
        writer.writerow([line["number"], line["state"], value, line["seconds"], line["kind"], *cells])
    return out.getvalue()


Interval = tuple[float, float]  # seconds since the epoch


def work_intervals(
    trials: Sequence[FrozenTrial], now: float, is_owned: Callable[[FrozenTrial], bool]
) -> list[Interval]:
    """The intervals in which trials ran.

    Args:
        trials: Every trial of the study.
        now: The time.
        is_owned: Whether the engine of a running trial is alive; a stale trial does not run.
    """
    ended = [(float(a), float(b)) for trial in trials for a, b in trial.user_attrs.get("sessions", [])]
    running = [t for t in trials if t.state is TrialState.RUNNING and "began" in t.user_attrs and is_owned(t)]
    return ended + [(float(trial.user_attrs["began"]), now) for trial in running]


def elapsed_time(intervals: Iterable[Interval]) -> float:
    """Seconds that lie in at least one interval.

    Example:
        >>> elapsed_time([(0, 10), (5, 12), (20, 21)])
        13.0
    """
    total, latest = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, latest))
        latest = max(latest, end)
    return total


def median_duration(trials: Sequence[FrozenTrial]) -> float:
    """Median seconds of a finished trial; 0 before there is one."""
    durations = [
        sum(float(b) - float(a) for a, b in trial.user_attrs["sessions"])
        for trial in trials
        if trial.state.is_finished() and "sessions" in trial.user_attrs
    ]
    return statistics.median(durations) if durations else 0.0


def drop_checkpoints(
    folder: StudyFolder, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], keep: int | None
) -> None:
    """Delete the checkpoints of finished trials that are not among the best.

    Args:
        folder: The study's files.
        trials: Every trial of the study.
        directions: Directions of the objectives.
        keep: Number of trials that keep theirs; None for all.
    """
    if keep is None:
        return
    kept = {trial.number for trial in rank_trials(trials, directions)[:keep]}
    newest = max((trial.user_attrs.get(GENERATION, 0) for trial in trials), default=0)
    # the next stage of a population starts from the checkpoints of the last two
    kept |= {trial.number for trial in trials if trial.user_attrs.get(GENERATION, -2) >= newest - 1}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in kept:
            for file in RunDirectory(folder.trial_folder(trial.number)).checkpoints.glob("*.ckpt"):
                file.unlink(missing_ok=True)
