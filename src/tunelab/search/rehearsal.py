"""Before a search starts: does every setting that varies exist, and every option?"""

from pathlib import Path

from omegaconf import DictConfig

from tunelab.command_line import composed, key_of
from tunelab.errors import ConfigError
from tunelab.search.dimension import Choice, Dimension
from tunelab.search.request import Request


def rehearse(config: DictConfig, request: Request) -> None:
    """Compose every option and both ends of every range once.

    Args:
        config: As Hydra composed it; knows where its files lie.
        request: What will be searched.

    Raises:
        ConfigError: Naming what no trial could start with.
    """
    sources = config.hydra.runtime.config_sources
    conf = next(Path(source.path) for source in sources if source.provider == "main")
    fixed = [override for override in request.fixed if not key_of(override).startswith(("hydra", "experiment"))]
    faults: list[str] = []
    for key, found in request.space.always.items():
        for text in texts(found):
            inner = [(c.dimensions, text) for c in request.space.when if c.key == key and found.text(c.value) == text]
            beside = [f"{k}={texts(d)[0]}" for dimensions, _ in inner for k, d in dimensions.items()]
            faults += composed([*fixed, f"{key}={text}", *beside], conf)[0]
    if faults:
        raise ConfigError.listing(list(dict.fromkeys(faults)))


def texts(found: Dimension) -> list[str]:
    """The values to try: every option, or both ends."""
    return list(found.texts) if isinstance(found, Choice) else [found.text(found.low), found.text(found.high)]
