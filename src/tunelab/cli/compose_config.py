"""A validated RunConfig from the `key=value` arguments of a command, composed from the same tree as train.py."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tunelab.config.overrides import complete_overrides, error_reason, override_faults
from tunelab.config.resource_paths import conf_directory
from tunelab.config.resume import resume_config
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError


def compose_settings(overrides: Sequence[str]) -> RunConfig:
    """The settings of `python train.py OVERRIDES`; with `resume=RUN` those of that run.

    Raises:
        ConfigError: Naming every fault at once.
    """
    completed = complete_overrides(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_directory()), version_base="1.3"):
            config = compose("config", overrides=completed)
        typed = [word for word in completed if not word.startswith("hydra.")]
        return validate_config(resume_config(config, typed) if config.resume else config)
    except (HydraException, OmegaConfBaseException) as fault:
        raise ConfigError.listing(override_faults(completed, conf_directory()) or [error_reason(fault)]) from fault
