"""What every trial of a study was given alike.  Read without Optuna, because each trial asks."""

import json
from pathlib import Path


def shared_words(study: Path) -> list[str]:
    """Overrides that all trials of a study have; none where its request is not written."""
    request = study / "search.json"
    if not request.is_file():
        return []
    return [str(word) for word in json.loads(request.read_text(encoding="utf-8")).get("fixed", [])]
