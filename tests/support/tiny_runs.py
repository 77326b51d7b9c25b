"""Runs small enough for a test: a one-screen config, a tiny model, a few records."""

import json
import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from support.paths import ROOT
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config

CONF = ROOT / "conf"
WORDS = "red blue green gold grey pink teal plum sand rust".split()
MODEL = ["model=scratch", "model.depth=2", "model.width=32", "model.heads=2", "model.context=128"]
QUIET = ["logger=none", "trainer.enable_progress_bar=false", "eval.max_new_tokens=4", "eval.base=false"]


def config(*overrides: str) -> DictConfig:
    """The config that a command line composes to.

    Hydra takes an eighth of a second for each, nearly all of it for the choice of files; so the choices are composed
    once, and a copy then gets the values as Hydra would set them.
    """
    choices = tuple(word for word in overrides if is_choice(word))
    values = [word for word in overrides if not is_choice(word)]
    if all(re.fullmatch(r"[a-z_]+=\w+", word) for word in choices) and not any(map(concerns_hydra, values)):
        try:
            parsed = OverridesParser.create().parse_overrides(values)
            if not any(override.is_sweep_override() for override in parsed):
                composed: DictConfig = pickle.loads(chosen(choices))
                ConfigLoaderImpl._apply_overrides_to_config(parsed, composed)
                return composed
        except HydraException:
            pass  # composed as a whole, it is refused in the words that a user reads
    return composed_by_hydra(*overrides)


def is_choice(word: str) -> bool:
    """Whether an override chooses one of the yaml files of a group."""
    return (CONF / re.split("[=@]", word.lstrip("+~"))[0]).is_dir()


def concerns_hydra(word: str) -> bool:
    """Whether an override sets what Hydra itself reads, which is checked as a whole."""
    return word.lstrip("+~").startswith(("hydra", "name="))


@cache
def chosen(choices: tuple[str, ...]) -> bytes:
    """The config of a choice of files, pickled: that is copied in a sixth of the time."""
    return pickle.dumps(composed_by_hydra(*choices))


def composed_by_hydra(*overrides: str) -> DictConfig:
    """The config as Hydra composes it, from the files."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def settings(*overrides: str) -> RunConfig:
    """The checked settings of a command line."""
    return validate_config(config(*overrides))


def instructions(folder: Path, rows: int = 24) -> Path:
    """A file of short instructions with answers of uneven length."""
    records = [
        {
            "instruction": f"say {WORDS[i % 10]}",
            "input": " ".join(WORDS[: i % 7]),
            "output": " ".join([WORDS[i % 10]] * (i % 5 + 1)) + f" {i}",
        }
        for i in range(rows)
    ]
    return write(folder / "instructions.jsonl", records)


def labelled(folder: Path, rows: int = 60) -> Path:
    """A file of texts whose label is their first word."""
    records = [
        {"text": f"{WORDS[i % 3]} {WORDS[i % 10]} {i}", "label": WORDS[i % 3], "number": (i % 3) + 0.5}
        for i in range(rows)
    ]
    return write(folder / "labelled.jsonl", records)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    """Records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
