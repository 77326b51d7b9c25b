"""Runs small enough for a test: a one-screen config, a tiny model, a few records."""

import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from support.paths import ROOT
from tunelab.config.schema import RunConfig
from tunelab.config.validate import validate_config

CONF = ROOT / "conf"
WORDS = "red blue green gold grey pink teal plum sand rust".split()
MODEL = ["model=scratch", "model.depth=2", "model.width=32", "model.heads=2", "model.context=128"]
QUIET = ["logger=none", "trainer.enable_progress_bar=false", "eval.max_new_tokens=4", "eval.base=false"]


def config(*overrides: str) -> DictConfig:
    """The config that a command line composes to."""
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
