"""Composed settings from the `key=value` words of a command or a caller in Python, from the same tree as train.py."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tunelab.config.override_text import primary_config
from tunelab.config.overrides import complete_overrides, error_reason, override_faults, strip_flags
from tunelab.config.resource_paths import conf_directory
from tunelab.config.resume import resume_config
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.language.translation import configure_language


@dataclass(frozen=True)
class ComposedRun:
    """A run as `python train.py OVERRIDES` would do it.

    Attributes:
        folder: Its run directory; not made yet.
        overrides: What was changed, for the record.
    """

    settings: RunConfig
    folder: Path
    overrides: Sequence[str]


@dataclass(frozen=True)
class ComposedConfig:
    """A config as Hydra composed it, attributes as of `ComposedRun`, with all words that it was composed from."""

    config: DictConfig
    folder: Path
    overrides: Sequence[str]
    words: Sequence[str]

    def check(self) -> RunConfig:
        """The settings; with `resume=RUN` those of that run.

        Raises:
            ConfigError: Naming every fault at once.
        """
        with faults_explained(self.words):
            return validate_config(resume_config(self.config, self.overrides) if self.config.resume else self.config)


def compose_settings(overrides: Sequence[str]) -> RunConfig:
    """The settings of `python train.py OVERRIDES`; with `resume=RUN` those of that run.

    Raises:
        ConfigError: Naming every fault at once.
    """
    return compose_run(overrides).settings


def compose_run(overrides: Sequence[str]) -> ComposedRun:
    """Settings and folder of `python train.py OVERRIDES`.

    Raises:
        ConfigError: Naming every fault at once.
    """
    composed = compose_config(overrides)
    return ComposedRun(composed.check(), composed.folder, composed.overrides)


def compose_config(overrides: Sequence[str]) -> ComposedConfig:
    """The config of `python train.py OVERRIDES`, not checked yet; from now on messages are in its language.

    Raises:
        ConfigError: Naming every fault at once, where composing failed.
    """
    with composition(overrides) as completed:
        config = compose(primary_config(completed), strip_flags(completed), return_hydra_config=True)
        folder, task = Path(str(config.hydra.run.dir)), list(config.hydra.overrides.task)
        with open_dict(config):
            del config["hydra"]
    configure_language(config.get("lang"))
    return ComposedConfig(config, folder, task, completed)


def compose_search(overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """The config of `python train.py -m OVERRIDES` with Hydra's own part, and the words that are not Hydra's.

    Raises:
        ConfigError: Naming every fault at once.
    """
    with composition(["-m", *overrides]) as completed:
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(primary_config(completed), strip_flags(completed), run_mode=RunMode.MULTIRUN)
        OmegaConf.resolve(config.hydra.sweep)  # its folder holds the time, which is to be the same for all that ask
    return config, list(config.hydra.overrides.task)


@contextmanager
def composition(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Within it Hydra composes from conf/; yields the completed overrides.  The caller's own Hydra is back afterwards.

    Raises:
        ConfigError: Naming every fault at once, where composing failed.
    """
    completed = complete_overrides(overrides)
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with faults_explained(completed), initialize_config_dir(str(conf_directory()), version_base="1.3"):
            yield completed
    finally:
        GlobalHydra.instance().hydra = outer


@contextmanager
def faults_explained(overrides: Sequence[str]) -> Iterator[None]:
    """Within it a fault of Hydra or its values names every word that is wrong.

    Raises:
        ConfigError: Naming every fault at once.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as fault:
        faults = override_faults(overrides, conf_directory())
        raise ConfigError.listing(faults or [error_reason(fault)]) from fault
