"""A whole search, behind every `-m`: prepare it, run the engine, conclude with the results."""

import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from tunelab.config.cross_checks import fold_faults
from tunelab.config.override_text import search_path_folders, searchpath_overrides
from tunelab.config.quoting import path_word
from tunelab.config.renames import rename_old_names
from tunelab.config.schema import CrossValidationConfig, LoggerConfig, SearchConfig
from tunelab.errors import ConfigError, TuneLabError
from tunelab.language.translation import configure_language, translate
from tunelab.runs import console
from tunelab.runs.entry_script import own_script, train_command
from tunelab.runs.locks import exclusive_lock
from tunelab.runs.stop_signals import handle_stop_signals
from tunelab.runs.study_folder import StudyFolder
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
    SearchRequest,
    parse_request,
    parse_search_config,
    resolve_objectives,
    validate_space,
    with_budget,
    with_default_space,
)
from tunelab.search.search_console import ProgressDisplay, announce_results, announce_search, resume_command
from tunelab.search.space import Params
from tunelab.search.study_artifacts import (
    EffectPlot,
    log_study_report,
    parse_effect_plot,
    tracker_overrides,
    write_effect_plot,
)
from tunelab.search.study_config import STORAGE_VARIABLE, check_compatible
from tunelab.search.study_results import drop_checkpoints, rank_trials, write_results
from tunelab.search.study_storage import STUDY_NAME, TrialStore, open_storage, open_study
from tunelab.search.suggest import SamplerProposer
from tunelab.search.trial_outcome import TRIAL_LOG, read_json_object
from tunelab.search.trial_process import LocalExecutor, slot_environments
from tunelab.search.worker_pool import WorkerPool

ENGINE_SEED_STEP = 7919  # between the seeds of two engines of one study, so that no two suggest the same


def run_search(config: DictConfig, arguments: Sequence[str], train: TrainFunction) -> None:
    """Do the search of a command line with `-m`.

    Args:
        config: As Hydra composed it, without the overrides that vary.
        arguments: The task overrides of the command line.
        train: Does one training in this process, for `search.isolation=inline`.

    Raises:
        ConfigError: If the configuration has faults; nothing was started.
        TuneLabError: If the search could not finish.
        SystemExit: 128 + N after stop signal N; the same command resumes the search.
    """
    configure_language(config.get("lang"))
    prepared = prepare(config, arguments)
    study, finished = run(prepared, train)
    conclude(prepared, study, finished)


@dataclass(frozen=True)
class PreparedSearch:
    """A checked search, before it starts.

    Attributes:
        search: The `search` block.
        request: Space and fixed overrides of the command line.
        folder: The study's files.
        objectives: Names of the objectives.
        modes: Direction of each, `min` or `max`.
        initial_trials: Configurations to try before any other, each with its origin.
        slots: Additional environment variables of each slot.
        fixed: Overrides of every trial.
        config_groups: Names of the config groups.
        effect: The effect plot; None for none.
        logger: The `logger` block.
        test_best: Whether the best is scored on the test split, which `test=false` leaves untouched.
    """

    search: SearchConfig
    request: SearchRequest
    folder: StudyFolder
    objectives: Sequence[str]
    modes: Sequence[str]
    initial_trials: Sequence[tuple[Params, str]]
    slots: Sequence[Mapping[str, str]]
    fixed: Sequence[str]
    config_groups: frozenset[str]
    effect: EffectPlot | None
    logger: LoggerConfig
    test_best: bool = True

    @property
    def storage_variable(self) -> dict[str, str]:
        """The environment variable with the database address, for trials; empty where the study is a file."""
        address = self.search.storage
        return {STORAGE_VARIABLE: address} if address is not None and "://" in address else {}


def prepare(config: DictConfig, arguments: Sequence[str]) -> PreparedSearch:
    """Check a search; nothing is written or started.

    Raises:
        ConfigError: If the configuration has faults.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # a job of SLURM may have further tasks for the trials
        raise ConfigError(
            translate("a search under torchrun: start it without; each trial starts its own trainer.devices")
        )
    config = rename_old_names(config)
    faults = list[str]()
    cv = CrossValidationConfig.parse(plain_block(config.cv), "cv", faults)
    logger = LoggerConfig.parse(plain_block(config.logger), "logger", faults)
    if faults := faults + fold_faults(cv, is_trial=True):
        raise ConfigError.listing(faults)
    config, arguments, space_name = with_default_space(config, arguments)
    request = parse_request(config, arguments)
    if space_name is not None:
        note = translate(
            "nothing was named that varies, so the space {space_name} of this task and adapter is searched",
            space_name=space_name,
        )
        how = translate("another: search/space=NAME, or ranges of your own such as lr=interval(1e-5,1e-3)")
        request = replace(request, notes=(translate("; ").join((note, how)), *request.notes))
    search = with_budget(parse_search_config(plain_block(config.search)), request)
    check_pbt(search, request, config)
    effect = parse_effect_plot(search.effect, request.space)
    validate_space(config, request)
    folder = StudyFolder(Path(str(config.hydra.sweep.dir)).absolute())
    objectives, modes = resolve_objectives(config, search)
    staged = [NO_EARLY_STOPPING] if search.sampler == "pbt" else []
    beside = searchpath_overrides(config.hydra)
    request = replace(request, arguments=(*beside, *request.arguments))
    shared = [*tracker_overrides(config, folder), *beside, *request.fixed_overrides]
    return PreparedSearch(
        search=search,
        request=request,
        folder=folder,
        objectives=objectives,
        modes=modes,
        initial_trials=initial_trials(search, request),
        slots=slot_environments(search.parallel_trials, search.devices_per_trial, os.environ),
        fixed=["save=false", *staged, *shared, "test=false"],
        config_groups=frozenset(map(str, config.hydra.runtime.choices)),
        effect=effect,
        logger=logger,
        test_best=search.test_best and bool(config.test),
    )


def run(prepared: PreparedSearch, train: TrainFunction) -> tuple[optuna.Study, bool]:
    """Run an engine on the study, then evaluate the best trial on the test split.

    Returns:
        The study, and whether the search is finished.

    Raises:
        TuneLabError: If the search could not finish.
        SystemExit: After a signal.
    """
    search, folder = prepared.search, prepared.folder
    folder.root.mkdir(parents=True, exist_ok=True)
    storage, repairs = open_storage(search.storage, folder)
    os.environ.update(prepared.storage_variable)  # for trials of this process; others get it with their slot
    with Heartbeat(folder.heartbeats) as heartbeat:
        with exclusive_lock(folder.engine_lock):  # engines that start together agree on one study
            study, earlier_engines = join_study(prepared, storage)
        seed = (search.seed + ENGINE_SEED_STEP * earlier_engines) % 2**31
        proposer = make_proposer(study, prepared, seed)
        announce_search(folder, search, prepared.request, repairs)
        display = ProgressDisplay(
            search.trials,
            prepared.objectives,
            study.directions,
            list(search.constraints),
            search.parallel_trials,
            search.hours,
        )
        recorder = StudyRecorder(prepared, study, display)
        script = own_script()
        executor = make_executor(search, train, folder.root / "jobs", display.say, script)
        engine = Engine(
            pool=WorkerPool(
                folder=folder,
                command=train_command(script),
                executor=executor,
                slots=[{**slot, **prepared.storage_variable} for slot in prepared.slots],
                engine=heartbeat.engine,
                store=TrialStore(study, storage),
                timeout=search.trial_timeout,
            ),
            proposer=proposer,
            config=search,
            objectives=prepared.objectives if search.objectives else ["monitor"],
            fixed=prepared.fixed,
            say=display.say,
            on_change=recorder.record,
            on_poll=lambda engine: display.refresh(engine.trials),
        )
        with closing(executor):
            with display, stop_on_signals(engine) as received:
                recorder.record(engine)
                finished = engine.run()
                recorder.record(engine)
            if received:
                console.show_command(
                    translate("stopped; continue with"), resume_command(folder, prepared.request.arguments)
                )
                raise SystemExit(128 + received[0])
            best = rank_trials(engine.trials(), study.directions)
            if finished and best and prepared.test_best:
                with exclusive_lock(folder.test_lock):  # of engines that end together one evaluates
                    # a slot beside others has its share of the threads only, and other executors run elsewhere
                    alike = isinstance(executor, LocalExecutor) and len(prepared.slots) == 1
                    start = partial(
                        executor.run if alike else LocalExecutor().run, environment=prepared.storage_variable
                    )
                    evaluate_best_trial(folder, study, best[0], train_command(script), console.say, start)
                recorder.record(engine)
    return study, finished


def conclude(prepared: PreparedSearch, study: optuna.Study, finished: bool) -> None:
    """Write the effect plot and the report, print the results, log the report to the tracker.

    Raises:
        TuneLabError: If no trial has a result, or the search is not finished.
    """
    folder, objectives = prepared.folder, prepared.objectives
    if prepared.effect is not None:
        command = f"{console.train_command()} -m {shlex.join(prepared.request.arguments)}"
        lower = prepared.modes[0] == "min"
        console.say(write_effect_plot(folder, prepared.effect, objectives[0], lower=lower, command=command))
        console.show_paths({translate("drawing"): folder.root / "effect.html"})
    log_report = partial(log_study_report, prepared.logger, folder)
    announce_results(folder, study, objectives, finished, log_report)


def join_study(prepared: PreparedSearch, storage: BaseStorage) -> tuple[optuna.Study, int]:
    """The study, and the number of engines that have worked on it; call it under the study lock.

    Raises:
        ConfigError: If the study has another configuration.
    """
    search, folder = prepared.search, prepared.folder
    name = folder.root.name if prepared.storage_variable else STUDY_NAME
    pruner = make_pruner(search.pruner, search.pruner_options)
    study = open_study(storage, name, prepared.modes, None, pruner)
    check_compatible(folder, study, search, prepared.request, prepared.objectives, prepared.modes)
    earlier_engines = int(study.user_attrs.get("engines", 0))
    study.set_user_attr("engines", earlier_engines + 1)
    return study, earlier_engines


def make_proposer(study: optuna.Study, prepared: PreparedSearch, seed: int) -> Proposer:
    """The proposer of a search; sets the sampler of the study."""
    search, space = prepared.search, prepared.request.space
    if search.sampler == "pbt":
        pbt = parse_pbt_config(search)
        return PopulationProposer(study, prepared.folder, space, pbt, prepared.initial_trials, search.seed)
    samplers = make_samplers(search.sampler, space, seed=seed, trials=search.trials, options=search.sampler_options)
    study.sampler = samplers.initial
    return SamplerProposer(study, space, samplers, prepared.initial_trials, search.sampler == "grid", seed)


@dataclass(frozen=True)
class StudyRecorder:
    """Writes the result files of a study whenever a trial has started or ended.

    Attributes:
        prepared: The search.
        study: Its study.
        display: Shows the progress.
    """

    prepared: PreparedSearch
    study: optuna.Study
    display: ProgressDisplay

    def record(self, engine: Engine) -> None:
        """Write the results, delete checkpoints that are not among the best, update the display."""
        folder, search, directions = self.prepared.folder, self.prepared.search, self.study.directions
        trials = engine.trials()
        facts = {
            "sampler": search.sampler,
            "pruner": search.pruner,
            "fixed": list(self.prepared.request.fixed_overrides),
            "test_looks": self.study.user_attrs.get("looks", 0),
            "test": self.study.user_attrs.get("test", {}),
        }
        if best := rank_trials(trials, directions):
            facts["schedule"] = settings_schedule(trials, best[0].number)
        objectives = self.prepared.objectives
        write_results(folder, trials, directions, objectives=objectives, best_config=self.best_config_text, facts=facts)
        drop_checkpoints(folder, trials, directions, search.keep)
        self.display.update(trials)

    def best_config_text(self, trial: FrozenTrial) -> str:
        """The text of best.yaml for a trial."""
        names, request = self.prepared.objectives, self.prepared.request
        values = ", ".join(f"{n} {value:.6g}" for n, value in zip(names, trial.values, strict=True))
        rank = "the best of a search" if len(names) == 1 else f"on the front of a search, best in {names[0]}"
        note = f"Trial {trial.number}, {rank}: {values}."
        if GENERATION in trial.user_attrs:
            note += "  Its last stage only; study.json has the whole schedule."
        overrides = [*request.fixed_overrides, *request.space.overrides(trial.params)]
        folders = search_path_folders([word for word in request.arguments if word.startswith("hydra.searchpath=")])
        return experiment_text(note, overrides, self.prepared.config_groups, folders)


def plain_block(config: Any) -> dict[str, Any]:
    """A block of the config as plain values."""
    block = OmegaConf.to_container(config, resolve=True)
    assert isinstance(block, dict)
    return {str(name): value for name, value in block.items()}


@contextmanager
def stop_on_signals(engine: Engine) -> Iterator[list[int]]:
    """Within it, a stop signal stops the engine; yields the list of received signals."""
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        engine.stop()

    replaced = handle_stop_signals(stop)
    try:
        yield received
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what it was before


def evaluate_best_trial(
    folder: StudyFolder,
    study: optuna.Study,
    best: FrozenTrial,
    command: Sequence[str],
    say: Callable[[str], None],
    run_training: Callable[[Sequence[str], Path], int],
) -> None:
    """Evaluate the best trial on the test split and export it, once; the study counts the evaluations.

    Args:
        folder: The study's files.
        study: The study.
        best: Its best trial.
        command: The command of a training.
        say: Prints a line.
        run_training: Does one training, from its command and its run directory; returns the exit status.

    Raises:
        TuneLabError: If the evaluation fails.
    """
    if study.user_attrs.get("test", {}).get("trial") == best.number:
        return
    evaluations = int(study.user_attrs.get("looks", 0)) + 1
    study.set_user_attr("looks", evaluations)  # before it starts: one that fails half-way counts too
    run_dir = folder.trial_folder(best.number)
    log_file = run_dir / TRIAL_LOG
    say(translate("evaluating trial {number}, the best, on the test split", number=best.number))
    overrides = [path_word("resume", run_dir), path_word("hydra.run.dir", run_dir), "test=true", "save=true"]
    status = run_training([*command, *overrides], run_dir)
    if status != 0:
        raise TuneLabError(
            translate(
                "the best trial {number} could not be scored on the test split (exit status "
                "{returncode}); {log_file} says why, and the same command tries it again",
                number=best.number,
                returncode=status,
                log_file=log_file,
            )
        )
    scores = {
        name: value
        for name, value in read_json_object(run_dir / "metrics.json").items()
        if name.startswith(("test/", "base/"))
    }
    study.set_user_attr("test", {"trial": best.number, "scores": scores})
    if not scores:
        say(
            translate(
                "there is no test split, so the best score is the one that the search selected by: it is too optimistic"
            )
        )
        return
    title = translate("test scores of trial {number}", number=best.number)
    console.show_scores(console.scores_by_split(scores), title=title)
    if evaluations > 1:
        say(
            translate(
                "evaluation {count} on this test split; a score that was selected among several is too optimistic",
                count=evaluations,
            )
        )
