"""Texts and paths as values in the grammar of Hydra's command line.  Pure: loads no Hydra."""

import re
from contextlib import suppress
from pathlib import Path

PLAIN = re.compile(r"[A-Za-z_/.@%|?*][A-Za-z0-9_/.@%:|?*+\-]*(?: +[A-Za-z0-9_/.@%:|?*+\-]+)*")  # read as it stands
KEYWORDS = frozenset(("true", "false", "null"))  # in any capitals
PATH_NAMES = frozenset(  # the last part of keys that name a file or a folder
    "train validation test path tokenizer template resume dir storage study parent experiment warm_start".split()
)


def quote_hydra(text: str) -> str:
    """A text as one Hydra value, in quotes where Hydra would read it as something else.

    Example:
        >>> quote_hydra("runs/a-1"), quote_hydra("runs (new)"), quote_hydra("1e3")
        ('runs/a-1', "'runs (new)'", "'1e3'")
    """
    if PLAIN.fullmatch(text) and text.lower() not in KEYWORDS and not is_number(text):
        return text
    escaped = re.sub(r"(\\*)(')", r"\1\1\\\2", text)  # backslashes count before a quote only
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def is_number(text: str) -> bool:
    """Whether a text is a number for Hydra or for Python."""
    with suppress(ValueError):
        float(text)
        return True
    return False


def path_text(path: str | Path) -> str:
    """A path as one Hydra value: every sign stands for itself, `${` too."""
    return quote_hydra(re.sub(r"(\\*)\$\{", r"\1\1\\${", str(path)))


def path_word(key: str, path: str | Path) -> str:
    """The word `key=path`.

    Example:
        >>> path_word("hydra.run.dir", "runs (new)")
        "hydra.run.dir='runs (new)'"
    """
    return f"{key}={path_text(path)}"


def names_path(key: str) -> bool:
    """Whether a key names a file or a folder."""
    return key.lstrip("+").rpartition(".")[2] in PATH_NAMES
