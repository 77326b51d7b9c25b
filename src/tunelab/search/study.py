"""The study: Optuna's record of a search."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection

from tunelab.errors import ConfigError
from tunelab.search.folder import StudyFolder
from tunelab.search.journal import SafeJournal, SafeStorage

NAME = "tunelab"


def open_storage(where: str | None, folder: StudyFolder) -> tuple[BaseStorage, list[str]]:
    """The storage of a study, and what had to be mended in words.

    Args:
        where: A path, a database address such as `postgresql://...`, or None for the folder's own journal.
        folder: The study.

    Raises:
        ConfigError: If the database cannot be opened.
    """
    optuna.logging.set_verbosity(logging.ERROR)
    if where is not None and "://" in where:
        try:
            return RDBStorage(where, engine_kwargs={"pool_pre_ping": True}), []
        except Exception as fault:  # whatever the driver raises, the address is at fault
            first = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise ConfigError(
                f"search.storage={where.partition('://')[0]}://...: {first}; check the address and that its driver is "
                "installed, or leave search.storage out: a journal in the study's folder serves many machines too"
            ) from fault
    backend = SafeJournal(Path(where) if where is not None else folder.journal)
    return SafeStorage(backend), backend.repaired


def open_study(
    storage: BaseStorage, name: str, directions: Sequence[str], sampler: BaseSampler | None, pruner: BasePruner | None
) -> optuna.Study:
    """The study of that name, made where it is new.

    Raises:
        ConfigError: If it optimises something else.
    """
    ways = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    wanted = [ways[direction] for direction in directions]
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, load_if_exists=True, sampler=sampler, pruner=pruner
    )
    if study.directions != wanted:
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise ConfigError(
            f"this study is to {found} and the command asks to {', '.join(directions)}imise; give a new folder "
            "(hydra.sweep.dir=DIR) or the objectives it began with"
        )
    return study


def live_trial(storage: BaseStorage, name: str, number: int, pruner: BasePruner | None) -> Any:
    """A running trial by its number, from another process than the engine's: it can report and ask whether to stop."""
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    identifier = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(name), number)
    return optuna.trial.Trial(study, identifier)
