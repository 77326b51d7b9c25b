"""What every run looks up and no test changes, looked up once in a process: parsed files of conf/, this code."""

import pickle
from functools import cache
from pathlib import Path
from typing import Any

from support.paths import ROOT


def parse_config_files_once() -> Any:
    """Keep the yaml files of conf/ parsed: Hydra parses twenty anew for each config, in a third of its time.

    And for each it notes all choices made so far, in a fifth of its time, which only a choice that names others reads.

    Returns:
        The class of Hydra that reads config files.
    """
    from hydra._internal import defaults_list
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # registers the sources
    source = SourcesRegistry.instance().resolve("file")
    load, parsed = source.load_config, dict[tuple[str, str], bytes]()

    def load_once(self: Any, config_path: str) -> Any:
        if Path(self.path) != ROOT / "conf":
            return load(self, config_path)
        key = self.provider, config_path
        if key not in parsed:
            parsed[key] = pickle.dumps(load(self, config_path))
        return pickle.loads(parsed[key])  # changed while a config is composed

    note_choices = defaults_list._create_interpolation_map

    def note_choices_that_are_read(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        is_read = any(not default.is_self() and default.is_interpolation() for default in defaults)
        return note_choices(overrides, defaults, self_added) if is_read else {}

    source.load_config = load_once
    defaults_list._create_interpolation_map = note_choices_that_are_read
    return source


def look_at_the_code_once() -> None:
    """Keep commit, diff and hash of this code: each run asks a dozen git processes, and reads every file."""
    from tunelab.runs import manifest

    for name in ("code_revision", "code_sha256"):
        setattr(manifest, name, cache(getattr(manifest, name)))
