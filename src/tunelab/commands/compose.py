"""From `key=value` arguments of a command to checked settings: the same config tree as train.py."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tunelab.command_line import completed, faults_of, reason
from tunelab.errors import ConfigError
from tunelab.launch import CONF
from tunelab.resume import resumed
from tunelab.settings import Run, check


def settings_of(overrides: Sequence[str]) -> Run:
    """The settings that `python train.py OVERRIDES` would run with: with `resume=RUN`, those of that run.

    Raises:
        ConfigError: Naming every fault at once.
    """
    given = completed(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", overrides=given)
        typed = [word for word in given if not word.startswith("hydra.")]
        return check(resumed(config, typed) if config.resume else config)
    except (HydraException, OmegaConfBaseException) as fault:
        raise ConfigError.listing(faults_of(given, CONF) or [reason(fault)]) from fault
