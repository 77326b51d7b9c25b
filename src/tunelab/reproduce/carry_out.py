"""Train a run again, stage by stage, in processes that are set up as the card says."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab.atomic import write_json
from tunelab.checkpoint_io import read_checkpoint
from tunelab.data.places import locate
from tunelab.errors import ConfigError, TuneLabError
from tunelab.machine import hardware, numerics, packages
from tunelab.record import RunFolder
from tunelab.reproduce.stages import stages
from tunelab.revision import code_sha256, revision
from tunelab.run_card import sha256_file, sha256_folder

LEFT = 143  # exit status of a stage that was left where the next one begins
NUMERIC = ("CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "NVIDIA_TF32_OVERRIDE", "PYTHONHASHSEED", "TOKENIZERS_PARALLELISM")

Card = Mapping[str, Any]


def read_card(place: Path) -> dict[str, Any]:
    """The card of a run folder, or the file itself.

    Raises:
        ConfigError: If there is none.
    """
    file = place / "run.json" if place.is_dir() else place
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise ConfigError(
            f"{place} is no run: {file} cannot be read ({fault}); give a run folder or its run.json"
        ) from fault
    if not isinstance(found, dict) or not {"config", "sessions"} <= found.keys():
        raise ConfigError(f"{file} is no run card: it has no config and sessions; give a run folder or its run.json")
    return found


def around_us(card: Card) -> dict[str, Any]:
    """What a card would say now of data, weights, code, versions and machine; known before anything is trained."""
    directory = Path(card["directory"])
    data = {
        name: sha256_file(place)
        for name in (card["data"].get("files") or {})
        if (place := found_from(directory, name)) is not None and place.is_file()
    }
    base = card.get("model") or {}
    folder = found_from(directory, str(base.get("path")))
    known = base.get("sha256") and folder is not None and folder.is_dir()
    threads = {"threads": (card.get("numerics") or {}).get("threads")}  # which a repetition is given
    return {
        "data": {"files": data},
        "model": {"sha256": sha256_folder(folder)} if known and folder is not None else {},
        "git": revision(),
        "code_sha256": code_sha256(),
        "python": sys.version.split()[0],
        "packages": packages(),
        "hardware": hardware(),
        "numerics": {**numerics(), **threads, "deterministic": None, "float32_matmul_precision": None},
    }


def found_from(directory: Path, name: str) -> Path | None:
    """Where a name of a card points to, seen from the folder that the run was started in."""
    special = name.startswith(("package:", "generated:"))
    return locate(name if special else str(directory / Path(name).expanduser()))


def train_again(card: Card, folder: Path, *, seed: int | None = None) -> dict[str, Any]:
    """Train the run of a card in a new folder; its new card.

    Args:
        card: What to do.
        folder: Where to; there must be no run in it.
        seed: Another seed than the card's.

    Raises:
        ConfigError: If the folder holds something, or what the run was trained on is gone.
        TuneLabError: If the repetition does not come to an end that can be compared.
    """
    if (folder / "run.json").is_file():
        raise ConfigError(f"{folder} holds a run already, which would be overwritten; give another --output")
    directory = Path(card["directory"])
    if not directory.is_dir():
        directory = Path.cwd()
    config = dict(card["config"]) | ({} if seed is None else {"seed": seed})
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "again.json").absolute()  # what is done stands beside what came of it
    write_json(file, {**card, "config": config})
    given = stages(json.loads(file.read_text(encoding="utf-8")))
    for number, stage in enumerate(given):
        command = [sys.executable, "-m", "tunelab.commands.replay", str(file), str(number), str(folder.absolute())]
        done = subprocess.run(command, cwd=directory, env=surroundings(card), check=False)
        if stage.stop_at is not None and done.returncode in (0, LEFT):
            check_step(folder, stage.stop_at)
            continue
        if done.returncode == 2:
            raise ConfigError("the run cannot be repeated, see above: what it was trained on has to lie where it lay")
        if done.returncode and read_card(folder).get("status") != "diverged":
            raise TuneLabError(f"the repetition ended with status {done.returncode}; its folder is {folder}")
    return read_card(folder)


def check_step(folder: Path, wanted: int) -> None:
    """Refuse to go on from another step than the run did: the rest would be another run.

    Raises:
        TuneLabError: If the stage was stopped from outside, or ended before.
    """
    found = int(read_checkpoint(RunFolder(folder).last)["global_step"])
    if found != wanted:
        raise TuneLabError(
            f"the repetition stood at step {found} where the run was gone on with at step {wanted}; it was stopped "
            f"from outside, or its data are shorter now. Its folder is {folder}"
        )


def surroundings(card: Card) -> dict[str, str]:
    """The environment of a repetition: as many threads, and the numeric switches of the run."""
    past = card.get("numerics") or {}
    known = past.get("environment") or {}
    source = str(Path(__file__).parents[2])  # the code that repeats is the code that is compared
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    found = {**os.environ, "PYTHONPATH": path, **{name: known[name] for name in NUMERIC if name in known}}
    if past.get("threads"):
        found["OMP_NUM_THREADS"] = str(past["threads"])
        found.pop("MKL_NUM_THREADS", None)
    return found
