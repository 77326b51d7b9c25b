"""Before training: the run card is opened, and what is about to happen is told."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunelab import console
from tunelab.assemble import Prepared
from tunelab.checkpoint_io import read_checkpoint
from tunelab.data.places import locate
from tunelab.record import RunFolder
from tunelab.run_card import open_card, sha256_folder


def begin_card(prepared: Prepared, folder: RunFolder, overrides: Sequence[str]) -> dict[str, Any]:
    """Write the card of a run that starts, so that even a killed one says what it was."""
    settings = prepared.settings
    place = locate(str(settings.model["path"]))
    base = {"path": settings.model["path"], "sha256": sha256_folder(place) if place else None}
    card = open_card(
        command=[Path(sys.executable).name, *sys.argv],
        overrides=list(overrides),
        config=settings.plain,
        seed=settings.seed,
        data={"files": prepared.sources.files, "notes": prepared.sources.notes},
        model=base,
        earlier=folder.read_card() if settings.resume else None,
    )
    folder.write_card(card)
    return card


def show_work(prepared: Prepared, folder: RunFolder) -> None:
    """Tell what is about to be trained on what; the same goes into the data report."""
    model = prepared.model
    sizes = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "depth": getattr(model.config, "num_hidden_layers", None),
        "width": getattr(model.config, "hidden_size", None),
        "heads": getattr(model.config, "num_attention_heads", None),
        "vocabulary": model.config.get_text_config().vocab_size,
        "rows": "end to end" if prepared.flat else "padded, sorted by length",
    }
    console.show_model({"name": prepared.settings.model["path"], "family": model.config.model_type, **sizes})
    console.show_data(prepared.counts)
    for note in prepared.sources.notes:
        console.say(f"  {note}")
    folder.write_report({"splits": prepared.counts, "notes": prepared.sources.notes, "files": prepared.sources.files})


def steps_done(folder: RunFolder) -> int | None:
    """Optimizer steps in the checkpoint to go on from; None where the run never reached one."""
    if not folder.last.exists():
        console.say(f"{folder.root} has no checkpoint yet: starting from the beginning")
        return None
    steps = int(read_checkpoint(folder.last)["global_step"])
    console.say(f"going on after step {steps}")
    return steps
