"""A whole search, behind every `-m`: read its configuration, open the study, run the engine, evaluate the best trial on
the test split, write the results.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from tunelab.data.folds import fold_faults
from tunelab.errors import ConfigError, TuneLabError
from tunelab.runs import console
from tunelab.search.engine import Engine, Proposer
from tunelab.search.executors import make_executor
from tunelab.search.executors.inline import TrainFunction
from tunelab.search.heartbeat import Heartbeat
from tunelab.search.initial_trials import experiment_text, initial_trials
from tunelab.search.pbt import (
    GENERATION,
    NO_EARLY_STOPPING,
    PopulationProposer,
    check_pbt,
    parse_pbt_config,
    settings_schedule,
)
from tunelab.search.pruners import make_pruner
from tunelab.search.samplers import make_samplers
from tunelab.search.search_config import (
    SearchConfig,
    SearchRequest,
    check_search_config,
    parse_request,
    parse_search_config,
    resolve_objectives,
    validate_space,
    with_budget,
)
from tunelab.search.search_console import ProgressDisplay, announce_results, announce_search, resume_hint
from tunelab.search.space import Params
from tunelab.search.study_artifacts import log_study_report, parse_effect_plot, tracker_overrides, write_effect_plot
from tunelab.search.study_config import STORAGE_VARIABLE, check_compatible
from tunelab.search.study_folder import StudyFolder
from tunelab.search.study_results import drop_checkpoints, rank_trials, write_results
from tunelab.search.study_storage import STUDY_NAME, TrialStore, open_storage, open_study, study_lock
from tunelab.search.suggest import SamplerProposer
from tunelab.search.trial_outcome import TRIAL_LOG, read_json_object
from tunelab.search.trial_process import slot_environments, train_command
from tunelab.search.worker_pool import WorkerPool


def run_search(config: DictConfig, arguments: Sequence[str], train: TrainFunction) -> None:
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
    if faults := fold_faults({"cv": plain_block(config.cv), "trial": {"id": 0}}):
        raise ConfigError.listing(faults)
    request = parse_request(config, arguments)
    plan = with_budget(check_search_config(parse_search_config(plain_block(config.search))), request)
    check_pbt(plan, request, config)
    effect = parse_effect_plot(plain_block(config.search.effect), request.space)
    validate_space(config, request)
    known = initial_trials(plan, request)
    names, ways = resolve_objectives(config, plan)
    slots = slot_environments(plan.slots, plan.devices_per_trial, os.environ)
    folder = StudyFolder(Path(str(config.hydra.sweep.dir)).absolute())
    folder.root.mkdir(parents=True, exist_ok=True)
    storage, mended = open_storage(plan.storage, folder)
    shared = {STORAGE_VARIABLE: plan.storage} if plan.storage is not None and "://" in plan.storage else {}
    os.environ.update(shared)  # for trials of this process; the slots hand it to all others
    name = folder.root.name if shared else STUDY_NAME
    pruner = make_pruner(plan.pruner, plan.pruner_options)
    with Heartbeat(folder.engines) as heart:
        with study_lock(folder.lock):  # engines that start together agree on one study
            study = open_study(storage, name, ways, None, pruner)
            check_compatible(folder, study, plan, request, names, ways)
            before = int(study.user_attrs.get("engines", 0))
            study.set_user_attr("engines", before + 1)
        seed = (plan.seed + 7919 * before) % 2**31  # no two engines propose the same
        proposals = make_proposer(study, folder, plan, request, known, seed)
        announce_search(folder, plan, request, mended, arguments)
        watch = ProgressDisplay(plan.trials, names, study.directions, list(plan.constraints), plan.slots, plan.hours)
        staged = [NO_EARLY_STOPPING] if plan.sampler == "pbt" else []
        groups = set(config.hydra.runtime.choices)
        fixed = [*tracker_overrides(config, folder), *searchpath_overrides(config), *request.fixed]

        def winner(trial: FrozenTrial) -> str:
            values = ", ".join(f"{n} {value:.6g}" for n, value in zip(names, trial.values, strict=True))
            place = "the best of a search" if len(names) == 1 else f"on the front of a search, best in {names[0]}"
            note = f"Trial {trial.number}, {place}: {values}."
            if GENERATION in trial.user_attrs:
                note += "  Its last stage only; study.json has the whole schedule."
            return experiment_text(note, [*request.fixed, *request.space.overrides(trial.params)], groups)

        def changed(engine: Engine) -> None:
            trials = engine.trials()
            more = {
                "sampler": plan.sampler,
                "pruner": plan.pruner,
                "fixed": list(request.fixed),
                **test_split_facts(study),
            }
            if best := rank_trials(trials, study.directions):
                more["schedule"] = settings_schedule(trials, best[0].number)
            write_results(folder, trials, study.directions, objectives=names, winner=winner, more=more)
            drop_checkpoints(folder, trials, study.directions, plan.keep)
            watch.update(trials)

        crew = WorkerPool(
            folder=folder,
            command=train_command(),
            executor=make_executor(plan, train, folder.root / "jobs"),
            slots=[slot | shared for slot in slots],
            owner=heart.owner,
            notes=TrialStore(study, storage),
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
        with watch, stop_on_signals(engine) as received:
            changed(engine)
            finished = engine.run()
            changed(engine)
        if received:
            console.say(f"stopped; {resume_hint(folder, arguments)}")
            sys.exit(128 + received[0])
        best = rank_trials(engine.trials(), study.directions)
        if finished and best and plan.judge:
            with study_lock(folder.judged):  # engines that end together look once
                evaluate_best_trial(folder, study, best[0], train_command(), console.say)
            changed(engine)
    if effect is not None:
        typed = f"python train.py -m {shlex.join(arguments)}"
        console.say(write_effect_plot(folder, effect, names[0], lower=ways[0] == "min", command=typed))
        console.show_paths({"drawing": folder.root / "effect.html"})
    announce_results(folder, study, names, finished, show=partial(log_study_report, plain_block(config.logger), folder))


def plain_block(config: Any) -> dict[str, Any]:
    """A block of the config as plain values."""
    found = OmegaConf.to_container(config, resolve=True)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def searchpath_overrides(config: DictConfig) -> list[str]:
    """Where else Hydra looks for config files; trials must look there too."""
    given = OmegaConf.select(config, "hydra.overrides.hydra") or []
    return [str(line) for line in given if str(line).startswith("hydra.searchpath")]


def test_split_facts(study: optuna.Study) -> dict[str, Any]:
    """What the study knows of looks at the test split."""
    return {"test_looks": study.user_attrs.get("looks", 0), "test": study.user_attrs.get("test", {})}


@contextmanager
def stop_on_signals(engine: Engine) -> Iterator[list[int]]:
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


def make_proposer(
    study: optuna.Study,
    folder: StudyFolder,
    plan: SearchConfig,
    request: SearchRequest,
    owed: Sequence[tuple[Params, str]],
    seed: int,
) -> Proposer:
    """The proposer that a plan asks for.

    Args:
        study: What was tried; its sampler is set.
        folder: The study's files.
        plan: Names it.
        request: What varies.
        owed: Configurations to try before any other.
        seed: Of this engine.
    """
    if plan.sampler == "pbt":
        return PopulationProposer(study, folder, request.space, parse_pbt_config(plan), owed, plan.seed)
    samplers = make_samplers(plan.sampler, request.space, seed=seed, trials=plan.trials, options=plan.sampler_options)
    study.sampler = samplers.direct
    return SamplerProposer(study, request.space, samplers, owed, plan.sampler == "grid", seed)


def evaluate_best_trial(
    folder: StudyFolder, study: optuna.Study, winner: FrozenTrial, command: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Score the best trial on the test split and export it; each look at the split is counted in the study.

    Raises:
        TuneLabError: If the scoring fails.
    """
    before = study.user_attrs.get("test", {})
    if before.get("trial") == winner.number:
        return
    looks = int(study.user_attrs.get("looks", 0)) + 1
    study.set_user_attr("looks", looks)  # before the look: one that fails half-way has looked too
    run = folder.trial(winner.number)
    tell(f"scoring trial {winner.number}, and only it, on the test split")
    own = [f"resume={run}", f"hydra.run.dir={run}", "test=true", "save=true"]
    with (run / TRIAL_LOG).open("ab") as log:
        done = subprocess.run([*command, *own], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise TuneLabError(
            f"the best trial {winner.number} could not be scored on the test split (exit status {done.returncode}); "
            f"{run / TRIAL_LOG} tells why, and the same command tries it again"
        )
    scores = {
        name: value
        for name, value in read_json_object(run / "metrics.json").items()
        if name.startswith(("test/", "base/"))
    }
    study.set_user_attr("test", {"trial": winner.number, "scores": scores})
    if not scores:
        tell("there is no test split, so the best score is one that the search itself has chosen: too good to be true")
        return
    tell(", ".join(f"{name} {value:.5g}" for name, value in scores.items()))
    if looks > 1:
        tell(f"the test split was looked at {looks} times by now; each further look makes the score less honest")
