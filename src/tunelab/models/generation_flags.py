"""The generation settings that a base model ships: those that contradict each other are set aside.

transformers loads some of them with a warning and then refuses to save them, at the end of a training.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from tunelab.config.stored_files import read_stored_text

MODE_FLAGS = ("do_sample", "num_beams", "return_dict_in_generate")  # which others make sense follows from these


def sound_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that transformers takes together: each one is kept where it goes with those before it."""
    kept: dict[str, Any] = {}
    named = {name: value for name, value in flags.items() if not name.startswith(("_", "transformers_version"))}
    for name in [*(flag for flag in MODE_FLAGS if flag in named), *(name for name in named if name not in MODE_FLAGS)]:
        if name == "do_sample" and not isinstance(named[name], bool | None):
            continue
        try:
            GenerationConfig(**kept, **{name: named[name]}).validate(strict=True)
        except (ValueError, TypeError, AttributeError):
            continue
        kept[name] = named[name]
    return kept


def read_sound_flags(file: Path) -> tuple[GenerationConfig | None, str | None]:
    """The generation settings of a model's folder without those that contradict the others, and a note on these.

    Returns:
        None and None where all of them go together, or there are none.
    """
    try:
        flags = json.loads(read_stored_text(file))
    except (OSError, ValueError, RecursionError):
        return None, None  # transformers takes the model's config instead
    if not isinstance(flags, dict):
        return GenerationConfig(), f"{file.name} of the base is no JSON object, so the export has none of it"
    kept = sound_flags(flags)
    return (GenerationConfig(**kept), note) if (note := flags_note(flags, kept)) else (None, None)


def settle_generation_flags(model: PreTrainedModel) -> str | None:
    """Set the flags of a loaded model aside that contradict its other ones; returns a note where there are some."""
    flags = model.generation_config.to_diff_dict()
    kept = sound_flags(flags)
    if note := flags_note(flags, kept):
        model.generation_config = GenerationConfig(**kept)
    return note


def flags_note(flags: Mapping[str, Any], kept: Mapping[str, Any]) -> str | None:
    """A note on the flags that are not kept; None where all are."""
    aside = [
        f"{name}={json.dumps(value)}"
        for name, value in flags.items()
        if name not in kept and not name.startswith(("_", "transformers_version"))
    ]
    if not aside:
        return None
    return (
        f"the base's generation_config.json contradicts itself: {', '.join(aside)} cannot stand beside its other flags "
        "and is left out of the export"
    )
