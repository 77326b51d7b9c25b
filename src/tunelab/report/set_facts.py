"""Any set of runs, looked at as a search that nobody planned: what differs between their settings is what varied."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunelab.effects.points import SEED, Trial
from tunelab.effects.setting import setting_of_seen
from tunelab.report.run_facts import RunFacts
from tunelab.report.study_facts import StudyFacts
from tunelab.report.words import counted, flat

APART = (
    "hydra",
    "logger",
    "name",
    "resume",
    "save",
    "search",
    "test",
    "trial",
    "trainer.logger",
)  # say nothing of how it trained
DONE = ("finished", "early-stopped")


def set_facts(runs: Sequence[RunFacts]) -> StudyFacts:
    """The runs as trials, in the order given."""
    followed = Counter(run.monitor for run in runs if run.monitor)
    score = followed.most_common(1)[0][0] if followed else ""
    missing = [f"{run.name}: {text}" for run in runs for text in run.missing if "run.json" in text]
    others = [run.name for run in runs if run.monitor and run.monitor != score]
    if others:
        missing.append(f"{counted(len(others), 'run')} followed another score than {score} and cannot be ranked by it")
    settings = [plain_settings(run) for run in runs]
    varied = [
        name
        for name in dict.fromkeys(name for one in settings for name in one)
        if len({repr(one.get(name)) for one in settings}) > 1
    ]
    trials = [
        trial(at, run, score, {n: one[n] for n in varied if n in one})
        for at, (run, one) in enumerate(zip(runs, settings, strict=True))
    ]
    lower = next((run.lower for run in runs if run.monitor == score), True)
    axes = [setting_of_seen(n, [t.params[n] for t in trials if n in t.params]) for n in varied if n != SEED]
    return StudyFacts(
        Path(os.path.commonpath([run.root.absolute() for run in runs])),
        score or "score",
        lower,
        trials,
        axes,
        runs={at: run.root for at, run in enumerate(runs)},
        objectives=(score,),
        missing=tuple(missing),
    )


def plain_settings(run: RunFacts) -> dict[str, Any]:
    """The settings that shape a training, those that are one plain value."""
    found = flat(run.config)
    return {
        name: value
        for name, value in found.items()
        if not any(name == one or name.startswith(f"{one}.") for one in APART)
        and (value is None or isinstance(value, str | int | float | bool))
    }


def trial(number: int, run: RunFacts, score: str, params: dict[str, Any]) -> Trial:
    """A run as a trial."""
    value = run.best.get("value") if run.monitor == score else None
    state = "complete" if run.status in DONE else "pruned" if run.status == "pruned" else "failed"
    curve = tuple((row["step"] + 1, row[score]) for row in run.curves if score in row and "step" in row)
    return Trial(
        number,
        state,
        params,
        float(value) if isinstance(value, int | float) else None,
        float(run.card["seconds"]) if isinstance(run.card.get("seconds"), int | float) else None,
        run.status if state == "failed" else "",
        str(run.card.get("reason") or ""),
        curve,
        dict(run.scores),
        tuple(map(str, run.card.get("overrides") or ())),
        run.name,
    )
