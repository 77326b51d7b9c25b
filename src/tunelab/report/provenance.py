"""The section that proves a run: the command, the code, the versions, the machine.  Pure."""

import shlex
from collections.abc import Mapping
from typing import Any

from tunelab.report.blocks import Block, Command, Grid, Section, Value, Words
from tunelab.report.run_facts import RunFacts
from tunelab.report.words import counted, duration, flat, plain_cell

TOLD = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "peft",
    "datasets",
    "hydra-core",
    "numpy",
    "optuna",
    "tunelab",
)
GIGA = 2**30


def provenance(run: RunFacts) -> list[Section]:
    """The section; none without a run card."""
    card = run.card
    if not card:
        return []
    blocks: list[Block] = []
    if command := card.get("command"):
        blocks.append(Command(str(command), "The command, as it was given:"))
    blocks.append(
        Command(f"tunelab reproduce {shlex.quote(str(run.root))}", "To run it again and compare every number:")
    )
    blocks += [Words(text, "warn") for text in doubts(card)]
    rows: list[list[Value]] = [[name, value] for name, value in facts(card).items() if value not in (None, "")]
    blocks.append(Grid("provenance", ["what", "value"], rows))
    blocks.append(settings(run))
    return [Section("How it came to be", blocks)]


def doubts(card: Mapping[str, Any]) -> list[str]:
    """What stands between this run and its repetition."""
    git = card.get("git") or {}
    found = []
    if git.get("dirty"):
        found.append(
            f"The code had changes that no commit holds ({git.get('diff_bytes', 0):,} bytes); run.json keeps them."
        )
    if git.get("untracked"):
        found.append(
            f"{len(git['untracked'])} files were not known to git, so the commit alone does not bring them back."
        )
    if not git.get("commit"):
        found.append("No commit is known: the code was run outside a git checkout.")
    if len(card.get("sessions") or ()):
        found.append(
            f"The run was resumed {counted(len(card['sessions']), 'time')}; look at the commit of each session."
        )
    return found


def facts(card: Mapping[str, Any]) -> dict[str, Value]:
    """The card's facts, a line each."""
    git, machine, model = card.get("git") or {}, card.get("hardware") or {}, card.get("model") or {}
    versions = card.get("packages") or {}
    gpus = [str(gpu.get("name", gpu)) if isinstance(gpu, Mapping) else str(gpu) for gpu in machine.get("gpus") or ()]
    memory = machine.get("memory_bytes")
    found: dict[str, Value] = {
        "id": card.get("id"),
        "started": card.get("started"),
        "ended": card.get("ended"),
        "time": duration(card.get("seconds")),
        "commit": git.get("commit"),
        "branch": git.get("branch"),
        "base model": model.get("path"),
        "weights sha256": model.get("sha256"),
        "processor": f"{machine.get('processor')}, {machine.get('usable_cores')} cores" if machine else None,
        "memory": f"{memory / GIGA:.1f} GiB" if memory else None,
        "accelerators": ", ".join(gpus) or "none",
        "Python": card.get("python"),
        "system": card.get("platform"),
        "seed": (card.get("seeds") or {}).get("global"),
    }
    return found | {name: versions[name] for name in TOLD if name in versions}


def settings(run: RunFacts) -> Grid:
    """Every setting, those that the command line changed marked."""
    changed = {str(word).lstrip("+~").partition("=")[0] for word in run.card.get("overrides") or ()}
    rows: list[list[Value]] = [
        [name, plain_cell(value), "changed" if name in changed or name.partition(".")[0] in changed else None]
        for name, value in flat(run.config).items()
    ]
    strong = frozenset(place for place, row in enumerate(rows) if row[2])
    return Grid("settings", ["setting", "value", "command line"], rows, "Every setting of the run.", strong=strong)
