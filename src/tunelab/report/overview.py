"""The head of a run's report: the numbers that matter, and what is to be thought of them.  Pure."""

from collections.abc import Mapping

from tunelab.report.answers import told_of_base
from tunelab.report.blocks import Block, Card, Cards, Grid, Section, Tone, Value, Verdicts, Words
from tunelab.report.curves import learning
from tunelab.report.intervals import interval_of
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import counted, duration, shown

MAIN = {  # by task: the scores that a reader looks for first
    "instruction": ("exact_match", "token_f1", "rougeL", "loss"),
    "classification": ("f1", "accuracy", "loss"),
    "regression": ("spearman", "mse", "mae"),
    "preference": ("accuracy", "reward_accuracy", "margin", "loss"),
}
ENDED: dict[str, Tone] = {
    "finished": "good", "early-stopped": "good", "running": "warn", "pruned": "warn", "pre-empted": "warn",
    "diverged": "bad", "failed": "bad", "unknown": "warn",
}  # fmt: skip


def overview(run: RunFacts) -> Section:
    """The section."""
    blocks: list[Block] = [Cards(cards(run)), Verdicts(verdicts(run))]
    if run.scores:
        blocks.append(scores(run.scores))
    return Section("In short", blocks)


def cards(run: RunFacts) -> list[Card]:
    """The numbers that stand out."""
    found: list[Card] = []
    for name in MAIN.get(run.task, ()):
        value = run.scores.get(f"test/{name}")
        if value is not None and len(found) < 3:
            found.append(Card(f"test {name}", shown(float(value)), interval_of(run, name)))
    if run.best:
        at = f"best checkpoint, step {run.best.get('step')}"
        found.append(Card(run.monitor, shown(run.best.get("value")), at))
    model = run.card.get("model") or {}
    if model.get("parameters"):
        found.append(
            Card("parameters", shown(float(model["parameters"])), f"{shown(float(model.get('trainable', 0)))} trained")
        )
    rows = (run.data.get("splits") or {}).get("train", {}).get("rows")
    if rows:
        found.append(Card("training rows", f"{rows:,}"))
    if run.card.get("seconds") is not None:
        found.append(Card("time", duration(run.card["seconds"])))
    return found


def verdicts(run: RunFacts) -> list[Words]:
    """How it ended, what training changed, whether it learned well, what is missing."""
    reason = f": {run.card['reason']}" if run.card.get("reason") else ""
    steps = counted(int(run.curves[-1].get("step", 0)) + 1, "step") if run.curves else "no logged step"
    lines = [Words(f"The run is {run.status} after {steps}{reason}.", ENDED.get(run.status, "warn"))]
    lines += told_of_base(run)
    if run.curves:
        lines += [Words(text, tone) for tone, text in learning(run).verdicts]
    lines += [Words(f"{text}.", "warn") for text in run.missing]
    return lines


def scores(found: Mapping[str, float]) -> Grid:
    """Every final score: a row each, a column for each split."""
    splits = list(dict.fromkeys(name.rpartition("/")[0] for name in found))
    names = list(dict.fromkeys(name.rpartition("/")[2] for name in found))
    rows: list[list[Value]] = [[name, *(found.get(f"{split}/{name}") for split in splits)] for name in names]
    return Grid(
        "scores", ["score", *splits], rows, "Final scores of the best checkpoint; base is the model before training."
    )
