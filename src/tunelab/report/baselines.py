"""What a model must beat to be worth anything: the majority class, the mean, a copy of the input, a coin.  Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from tunelab.language.translation import translate
from tunelab.report.run_reader import RunResults
from tunelab.runs.atomic_files import Row
from tunelab.tasks.metrics.text_overlap import exact_match, token_f1

MAX_COPIED_ROWS = 1000  # rows whose input is compared with the reference


@dataclass(frozen=True)
class Baseline:
    """A model that learned nothing.

    Attributes:
        name: What it does.
        phrase: The same within a sentence.
        scores: Its scores by bare name.
        rows: What it would have predicted for the test rows; empty where they are unknown.
    """

    name: str
    phrase: str
    scores: Mapping[str, float]
    rows: Sequence[Row] = field(default=())


def trivial_baseline(run: RunResults, split: str) -> Baseline | None:
    """The baseline that the task has without any model; None where none is known.

    Args:
        run: The run.
        split: `test`, whose rows are known, or `val`, of which only counts are.
    """
    rows = run.predictions if split == "test" else ()
    first = rows[0] if rows else {}
    if "reference" in first:
        return copied_input(rows)
    if isinstance(first.get("target"), int | float | dict):
        return mean_target(rows)
    if isinstance(first.get("label"), list):
        return most_frequent_set(rows)
    if "margin" in first or run.task == "preference":
        scores = {"reward_accuracy": 0.5, "reward_margin": 0.0}
        return Baseline(translate("coin toss"), translate("a coin toss"), scores, untrained_pairs(rows))
    if "probabilities" in first or run.task == "classification":
        return majority_class(run, split, rows)
    return None


def untrained_pairs(rows: Sequence[Row]) -> list[Row]:
    """The pairs as a model that prefers neither side leaves them."""
    return [dict(row) | {"margin": 0.0} for row in rows if isinstance(row.get("margin"), int | float)]


def majority_class(run: RunResults, split: str, rows: Sequence[Row]) -> Baseline | None:
    """Always the most frequent training label; its loss is that of the training frequencies."""
    known = run.data_report.get("labels")
    counts: Mapping[str, Any] = known if isinstance(known, Mapping) else {}
    held_out = Counter(str(row.get("label")) for row in rows) or Counter(label_counts(counts, SPLIT_NAMES[split]))
    training = label_counts(counts, "train") or dict(held_out)
    if not held_out or not training:
        return None
    majority, total = max(training, key=lambda name: training[name]), held_out.total()
    precision = held_out[majority] / total
    classes = len({*held_out, majority})
    scores = {"accuracy": precision, "f1": 2 * precision / (1 + precision) / classes}
    if all(training.get(name) for name in held_out):
        every = sum(training.values())
        scores["loss"] = -sum(n * math.log(training[name] / every) for name, n in held_out.items()) / total
    answers = [dict(row) | {"prediction": majority} for row in rows]
    phrase = translate("the majority class ({label})", label=majority)
    return Baseline(translate("majority class ({majority})", majority=majority), phrase, scores, answers)


SPLIT_NAMES = {"val": "validation", "test": "test"}


def label_counts(counts: Mapping[str, Any], split: str) -> dict[str, int]:
    """How often each label stands in a split; empty where the data report does not tell."""
    table = counts.get(split)
    if not isinstance(table, Mapping):
        return {}
    return {str(name): int(count) for name, count in table.items() if isinstance(count, int | float)}


def most_frequent_set(rows: Sequence[Row]) -> Baseline:
    """Always the most frequent set of labels of these rows."""
    ((labels, count),) = Counter(tuple(sorted(map(str, row["label"]))) for row in rows).most_common(1)
    answers = [dict(row) | {"prediction": list(labels)} for row in rows]
    named = ", ".join(labels) or "none"
    phrase = translate("the most frequent labels ({labels})", labels=named)
    return Baseline(
        translate("most frequent labels ({named})", named=named), phrase, {"accuracy": count / len(rows)}, answers
    )


def mean_target(rows: Sequence[Row]) -> Baseline:
    """Always the mean of these rows, the best constant there is; the scores of several targets are means over them."""
    single = not isinstance(rows[0]["target"], dict)
    targets = [{"": float(row["target"])} if single else dict(row["target"]) for row in rows]
    means = {name: fmean(float(row[name]) for row in targets) for name in targets[0]}
    errors = [abs(float(row[name]) - mean) for row in targets for name, mean in means.items()]
    scores = {"mse": fmean(error**2 for error in errors), "mae": fmean(errors), "r2": 0.0}
    answers = [dict(row) | {"prediction": means[""] if single else means} for row in rows]
    return Baseline(translate("mean of the test targets"), translate("the mean of the test targets"), scores, answers)


def copied_input(rows: Sequence[Row]) -> Baseline | None:
    """The input as the answer."""
    step = -(-len(rows) // MAX_COPIED_ROWS)
    answers = []
    for row in rows[::step]:
        prompt, reference = str(row.get("prompt", "")), str(row.get("reference", ""))
        scores = {"exact_match": exact_match(prompt, reference), "token_f1": token_f1(prompt, reference)}
        answers.append({"row": row["row"], "reference": reference, "prediction": prompt, **scores})
    means = {name: fmean(float(row[name]) for row in answers) for name in ("exact_match", "token_f1")}
    return Baseline(translate("copy of the input"), translate("a copy of the input"), means, answers)
