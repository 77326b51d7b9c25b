"""Settings of Python as words of the command line, in Hydra's grammar."""

import re
from collections.abc import Mapping
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException


def override_words(settings: Mapping[str, object], *, choices: bool = False) -> list[str]:
    """The words `key=value` of settings; those of a nested dict have dotted keys.

    Args:
        settings: Numbers, texts, paths, lists or dicts.
        choices: Whether a list is a choice to search over, and a text may be a range, instead of one value.

    Example:
        >>> override_words({"lr": 1e-4, "data": {"max_tokens": 256}, "resume": None})
        ['lr=0.0001', 'data.max_tokens=256', 'resume=null']
        >>> override_words({"lr": [1e-4, 1e-3]}, choices=True)
        ['lr=choice(0.0001,0.001)']
    """
    words = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and "_target_" not in value:
            words += override_words({f"{key}.{name}": inner for name, inner in value.items()}, choices=choices)
        elif "_target_" in (value if isinstance(value, Mapping) else ()):
            words.append(f"+{key}={value_text(value)}")  # an object of the user's own is a key that is not there yet
        elif choices and isinstance(value, list):
            words.append(f"{key}=choice({','.join(value_text(one) for one in value)})")
        elif isinstance(value, str) and fits_grammar(f"{key}={value}", sweep=choices):
            words.append(f"{key}={value}")
        else:
            words.append(f"{key}={value_text(value)}")
    return words


def fits_grammar(word: str, *, sweep: bool) -> bool:
    """Whether Hydra reads a word as it stands, and as one value unless it may be several."""
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return sweep or not parsed.is_sweep_override()


def value_text(value: object) -> str:
    """A value in the grammar of Hydra's command line.

    Example:
        >>> value_text({"a": [1, True, None], "b": "one, two"})
        "{a: [1, true, null], b: 'one, two'}"
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {value_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, str | Path):
        text = str(value)
        if re.fullmatch(r"[A-Za-z_][\w./-]*", text) and text.lower() not in ("true", "false", "null", "nan", "inf"):
            return text
        return QuotedString(text, Quote.single).with_quotes()
    if isinstance(value, int | float):
        return repr(value)
    return value_text(value.item()) if hasattr(value, "item") else value_text(str(value))  # numbers of numpy and torch
