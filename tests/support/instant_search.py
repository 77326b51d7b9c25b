"""Engines over a training that takes no time.  As a process: instant_search.py STUDY TRIALS SEED FIXED..."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunelab.runs.study_folder import StudyFolder
from tunelab.search.engine import Engine
from tunelab.search.executors.forking import ForkingExecutor
from tunelab.search.heartbeat import Heartbeat, process_name
from tunelab.search.samplers import make_samplers
from tunelab.search.search_config import SearchConfig
from tunelab.search.space import Space, build_space
from tunelab.search.study_storage import STUDY_NAME, TrialStore, open_storage, open_study
from tunelab.search.suggest import SamplerProposer
from tunelab.search.trial_process import LocalExecutor
from tunelab.search.worker_pool import WorkerPool

FORKED = "TUNELAB_TEST_FORKED"  # environment variable that lets trials be forked
FAKE = [sys.executable, str(Path(__file__).with_name("fake_training.py"))]
LINE = build_space({"x": "interval(0.0,1.0)"}, {}, {"x": 0.5})
PLAN = SearchConfig(
    sampler="random",
    pruner="none",
    trials=4,
    hours=None,
    parallel_trials=1,
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
    test_best=False,
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
    study = open_study(storage, STUDY_NAME, ways, samplers.initial, None)
    pool = WorkerPool(
        folder=folder,
        command=[sys.executable, "-P", "-m", "support.fake_training"] if FORKED in os.environ else FAKE,
        executor=ForkingExecutor(modules=["json"]) if FORKED in os.environ else LocalExecutor(),
        slots=[{} for _ in range(plan.parallel_trials)],
        engine=process_name(os.getpid()),
        store=TrialStore(study, storage),
        timeout=plan.trial_timeout,
    )
    return Engine(
        pool=pool,
        proposer=SamplerProposer(study, space, samplers, (), plan.sampler == "grid", seed),
        config=plan,
        objectives=["monitor"],
        fixed=fixed,
    )


def run(made: Engine) -> bool:
    """Search, with signs of life for other engines."""
    with Heartbeat(made.pool.folder.heartbeats), closing(made.pool.executor):
        return made.run()


def main() -> None:
    """One engine, to be killed by a test."""
    root, trials, seed, *fixed = sys.argv[1:]
    run(engine(Path(root), fixed, seed=int(seed), trials=int(trials), parallel_trials=2))


if __name__ == "__main__":
    main()
