"""Engines over a training that takes no time.  As a process: search_engines.py STUDY TRIALS SEED FIXED..."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunelab.search.crew import Crew
from tunelab.search.engine import Engine
from tunelab.search.folder import StudyFolder
from tunelab.search.jobs import LocalExecutor
from tunelab.search.notes import Notes
from tunelab.search.owner import Heart, owner_of
from tunelab.search.plan import Plan
from tunelab.search.proposals import Proposals
from tunelab.search.samplers import make_samplers
from tunelab.search.space import Space, build_space
from tunelab.search.study import NAME, open_storage, open_study

FAKE = [sys.executable, str(Path(__file__).with_name("fake_training.py"))]
LINE = build_space({"x": "interval(0.0,1.0)"}, {}, {"x": 0.5})
PLAN = Plan(
    sampler="random",
    pruner="none",
    trials=4,
    hours=None,
    slots=1,
    devices_per_trial=1,
    isolation="process",
    executor="local",
    storage=None,
    trial_timeout=None,
    retry=None,
    objectives=(),
    constraints={},
    warm_start=(),
    default_trial=False,
    keep=None,
    seed=0,
    judge=False,
    sampler_options={},
    pruner_options={},
    executor_options={},
)


def engine(
    root: Path,
    fixed: Sequence[str] = (),
    space: Space = LINE,
    seed: int = 0,
    ways: Sequence[str] = ("min",),
    **changes: Any,
) -> Engine:
    """An engine on the study in a folder."""
    plan = replace(PLAN, **changes)
    folder = StudyFolder(root)
    folder.root.mkdir(parents=True, exist_ok=True)
    storage, _ = open_storage(plan.storage, folder)
    samplers = make_samplers(plan.sampler, space, seed=seed, trials=plan.trials, options={})
    study = open_study(storage, NAME, ways, samplers.direct, None)
    crew = Crew(
        folder=folder,
        command=FAKE,
        executor=LocalExecutor(),
        slots=[{} for _ in range(plan.slots)],
        owner=owner_of(os.getpid()),
        notes=Notes(study, storage),
        limit=plan.trial_timeout,
    )
    return Engine(
        crew=crew,
        proposals=Proposals(study, space, samplers, (), plan.sampler == "grid", seed),
        plan=plan,
        objectives=["monitor"],
        fixed=fixed,
    )


def run(made: Engine) -> bool:
    """Search, with signs of life for other engines."""
    with Heart(made.crew.folder.engines):
        return made.run()


def main() -> None:
    """One engine, to be killed by a test."""
    root, trials, seed, *fixed = sys.argv[1:]
    run(engine(Path(root), fixed, seed=int(seed), trials=int(trials), slots=2))


if __name__ == "__main__":
    main()
