"""Why no model can be read from where the settings say it is."""

from difflib import get_close_matches
from pathlib import Path
from typing import Final

from tunelab.data.places import locate

WEIGHTS: Final = ("*.safetensors", "*.safetensors.index.json")
VOCABULARIES: Final = ("tokenizer.json", "vocab.*", "*.model", "tekken.json")


def not_loadable(what: str, source: str, fault: Exception) -> str:
    """The message for a model or tokenizer that does not load: what the place lacks, else what the loader said."""
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    reason, place = lines[0].rstrip(". "), locate(source)
    if place is not None and place.is_file():
        reason = f"it is a file; name the folder that it lies in, {place.parent}"
    elif place is not None and (lost := lacking(place, what)):
        reason = f"the folder has no {' and no '.join(lost)}"
    elif place is None and (Path(source).is_absolute() or len(Path(source).parts) > 2 or Path(source).parent.is_dir()):
        near = get_close_matches(Path(source).name, [path.name for path in siblings(Path(source))], 1)
        reason = "there is no such folder here" + (f"; did you mean '{Path(source).parent / near[0]}'?" if near else "")
        reason += f", and as the id of a hub: {lines[0].rstrip('. ')}"
    return (
        f"no {what} could be loaded from '{source}': {reason}. It must be a folder with config.json, "
        "model.safetensors and tokenizer files, or the id of a model hub that this machine can reach"
    )


def lacking(folder: Path, what: str) -> list[str]:
    """Files without which a model or tokenizer cannot be read from a folder."""
    needed = {"model": {"config.json": ("config.json",), "weights (*.safetensors)": WEIGHTS}}
    wanted = needed.get(what, {"tokenizer (tokenizer.json)": VOCABULARIES})
    return [name for name, patterns in wanted.items() if not any(any(folder.glob(pattern)) for pattern in patterns)]


def siblings(path: Path) -> list[Path]:
    """What lies in the folder in which a path should be."""
    return sorted(path.parent.iterdir()) if path.parent.is_dir() else []
