"""The story of a search: read the request, open the study, run trials, judge the winner, leave the ledger."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from tunelab import console
from tunelab.data.folds import fold_faults
from tunelab.errors import ConfigError
from tunelab.search.budget import checked, sized
from tunelab.search.claim import claim
from tunelab.search.crew import Crew
from tunelab.search.effect import effect_of, write_effect
from tunelab.search.engine import Engine
from tunelab.search.executors import make_executor
from tunelab.search.executors.inline import Train
from tunelab.search.folder import StudyFolder
from tunelab.search.jobs import train_command
from tunelab.search.judge import judge_winner
from tunelab.search.keep import drop_checkpoints
from tunelab.search.ledger import ranked, write_ledger
from tunelab.search.notes import Notes
from tunelab.search.objectives import objectives_of
from tunelab.search.owner import Heart
from tunelab.search.plan import plan_of
from tunelab.search.population import GENERATION, schedule_of
from tunelab.search.proposers import proposer
from tunelab.search.pruners import make_pruner
from tunelab.search.rehearsal import rehearse
from tunelab.search.request import request_of
from tunelab.search.slots import make_slots
from tunelab.search.stages import FREE_OF_STOPPING, check_stages
from tunelab.search.study import NAME, open_storage, open_study
from tunelab.search.telling import announce, conclude, resume_line
from tunelab.search.terms import ADDRESS, agree
from tunelab.search.tracked import show_study, tracked
from tunelab.search.warm import owed
from tunelab.search.watch import Watch
from tunelab.search.winner import experiment_text


def search(config: DictConfig, arguments: Sequence[str], train: Train) -> None:
    """Do the search that a command line with `-m` describes.

    Args:
        config: As Hydra composed it without what varies.
        arguments: The task overrides of the command line.
        train: Does one training in this process, for `search.isolation=inline`.

    Raises:
        ConfigError: If the request cannot be honoured; nothing was started.
        TuneLabError: If the search could not finish.
        SystemExit: 143 or 130 after a signal; the same command goes on.
    """
    if faults := fold_faults({"cv": block(config.cv), "trial": {"id": 0}}):
        raise ConfigError.listing(faults)
    request = request_of(config, arguments)
    plan = sized(checked(plan_of(block(config.search))), request)
    check_stages(plan, request, config)
    effect = effect_of(block(config.search.effect), request.space)
    rehearse(config, request)
    known = owed(plan, request)
    names, ways = objectives_of(config, plan)
    slots = make_slots(plan.slots, plan.devices_per_trial, os.environ)
    folder = StudyFolder(Path(str(config.hydra.sweep.dir)).absolute())
    folder.root.mkdir(parents=True, exist_ok=True)
    storage, mended = open_storage(plan.storage, folder)
    shared = {ADDRESS: plan.storage} if plan.storage is not None and "://" in plan.storage else {}
    os.environ.update(shared)  # for trials of this process; the slots hand it to all others
    name = folder.root.name if shared else NAME
    pruner = make_pruner(plan.pruner, plan.pruner_options)
    with Heart(folder.engines) as heart:
        with claim(folder.lock):  # engines that start together agree on one study
            study = open_study(storage, name, ways, None, pruner)
            agree(folder, study, plan, request, names, ways)
            before = int(study.user_attrs.get("engines", 0))
            study.set_user_attr("engines", before + 1)
        seed = (plan.seed + 7919 * before) % 2**31  # no two engines propose the same
        proposals = proposer(study, folder, plan, request, known, seed)
        announce(folder, plan, request, mended, arguments)
        watch = Watch(plan.trials, names, study.directions, list(plan.constraints), plan.slots, plan.hours)
        staged = [FREE_OF_STOPPING] if plan.sampler == "pbt" else []
        groups = set(config.hydra.runtime.choices)
        fixed = [*tracked(config, folder), *searchpath(config), *request.fixed]

        def winner(trial: FrozenTrial) -> str:
            values = ", ".join(f"{n} {value:.6g}" for n, value in zip(names, trial.values, strict=True))
            place = "the best of a search" if len(names) == 1 else f"on the front of a search, best in {names[0]}"
            note = f"Trial {trial.number}, {place}: {values}."
            if GENERATION in trial.user_attrs:
                note += "  Its last stage only; study.json has the whole schedule."
            return experiment_text(note, [*request.fixed, *request.space.overrides(trial.params)], groups)

        def changed(engine: Engine) -> None:
            trials = engine.trials()
            more = {"sampler": plan.sampler, "pruner": plan.pruner, "fixed": list(request.fixed), **facts(study)}
            if best := ranked(trials, study.directions):
                more["schedule"] = schedule_of(trials, best[0].number)
            write_ledger(folder, trials, study.directions, objectives=names, winner=winner, more=more)
            drop_checkpoints(folder, trials, study.directions, plan.keep)
            watch.update(trials)

        crew = Crew(
            folder=folder,
            command=train_command(),
            executor=make_executor(plan, train, folder.root / "jobs"),
            slots=[slot | shared for slot in slots],
            owner=heart.owner,
            notes=Notes(study, storage),
            limit=plan.trial_timeout,
        )
        engine = Engine(
            crew=crew,
            proposals=proposals,
            plan=plan,
            objectives=["monitor"] if not plan.objectives else names,
            fixed=["save=false", *staged, *fixed, "test=false"],
            tell=watch.say,
            changed=changed,
            looked=lambda engine: watch.look(engine.trials),
        )
        with watch, stopped_by_signals(engine) as received:
            changed(engine)
            finished = engine.run()
            changed(engine)
        if received:
            console.say(f"stopped; {resume_line(folder, arguments)}")
            sys.exit(128 + received[0])
        best = ranked(engine.trials(), study.directions)
        if finished and best and plan.judge:
            with claim(folder.judged):  # engines that end together look once
                judge_winner(folder, study, best[0], train_command(), console.say)
            changed(engine)
    if effect is not None:
        typed = f"python train.py -m {shlex.join(arguments)}"
        console.say(write_effect(folder, effect, names[0], lower=ways[0] == "min", command=typed))
        console.show_paths({"drawing": folder.root / "effect.html"})
    conclude(folder, study, names, finished, show=partial(show_study, block(config.logger), folder))


def block(config: Any) -> dict[str, Any]:
    """A block of the config as plain values."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def searchpath(config: DictConfig) -> list[str]:
    """Where else Hydra looks for config files; trials must look there too."""
    given = OmegaConf.select(config, "hydra.overrides.hydra") or []
    return [str(line) for line in given if str(line).startswith("hydra.searchpath")]


def facts(study: optuna.Study) -> dict[str, Any]:
    """What the study knows of looks at the test split."""
    return {"test_looks": study.user_attrs.get("looks", 0), "test": study.user_attrs.get("test", {})}


@contextmanager
def stopped_by_signals(engine: Engine) -> Iterator[list[int]]:
    """Within it, SIGTERM and SIGINT stop the engine and are noted."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        engine.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
