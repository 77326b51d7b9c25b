"""Messages in the language of this process.  The English text is the key of its translation; loads no torch.

`zh.toml` beside this holds the Chinese texts.  It is read when the first message is needed in Chinese.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

LANGUAGES = ("en", "zh")
LANGUAGE_VARIABLE = "TUNELAB_LANG"  # set by the option --lang, so that it holds for processes of a run too
SYSTEM_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set names the language of the system

Value = TypeVar("Value")
_configured: list[str] = []  # the language of the config at hand; empty where it names none


def translate(text: str, /, **values: object) -> str:
    """A message in the language of this process, its named placeholders filled in.

    Args:
        text: The English message, with placeholders such as `{steps:,}` and, after a count, its noun in both numbers:
            `{steps:,} [step|steps]`.  A literal, so that the test of the catalogues finds it; or what `message` marked
            where a constant was made.
        values: By the names of the placeholders; a marked message among them is translated too.

    Example:
        >>> translate("step {done}/{total}", done=3, total=10)
        'step 3/10'
    """
    local = catalogue(current_language()).get(text) or str(text)
    if not values:
        return local
    return agree(local, values).format(**{name: localize(value) for name, value in values.items()})


ALTERNATIVES = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]")
PLACEHOLDER = re.compile(r"\{(\w+)[^{}]*\}")


def agree(text: str, values: Mapping[str, object]) -> str:
    """A message with each `[row is|rows are]` in the number of the count before it.

    Example:
        >>> agree("{left} of {all} [row|rows]", {"left": 1, "all": 26})
        '{left} of {all} rows'
    """
    for match in reversed([*ALTERNATIVES.finditer(text)]):
        names = PLACEHOLDER.findall(text[: match.start()])
        counts = [str(values[name]) for name in names if str(values[name]).replace(",", "").replace(".", "").isdigit()]
        text = text[: match.start()] + match[1 if counts[-1:] in (["1"], ["1.0"]) else 2] + text[match.end() :]
    return text


class Message(str):
    """A text that is translated where it is shown: in a file for programs it stays English."""

    __slots__ = ()


def message(text: str, /) -> str:
    """The text itself, marked as a message that is translated later, where it is shown."""
    return Message(text)


def messages(*texts: str) -> list[str]:
    """Several messages, such as the columns of a table."""
    return list(map(Message, texts))


def localize(text: Value) -> Value | str:
    """A marked message in the language of this process; anything else, such as the name of a setting, as it is."""
    return translate(text) if isinstance(text, Message) else text


def labelled(name: str, text: str) -> str:
    """`name: text`, with the colon of the language of this process."""
    return translate("{title}: {name}", title=name, name=text)


def current_language() -> str:
    """`en` or `zh`: by the option --lang or TUNELAB_LANG, else by the config, else as the system is set."""
    chosen = os.environ.get(LANGUAGE_VARIABLE) or (_configured[0] if _configured else "")
    if chosen in LANGUAGES:
        return chosen
    system = next((value for name in SYSTEM_VARIABLES if (value := os.environ.get(name))), "")
    return "zh" if system.lower().startswith("zh") else "en"


def configure_language(name: str | None) -> None:
    """Make the `lang` of a config hold in this process; None leaves the language to the environment."""
    _configured[:] = [name] if name else []


@cache
def catalogue(name: str) -> Mapping[str, str]:
    """The messages of a language by their English text; empty for English, which needs none."""
    if name == "en":
        return {}
    from json import JSONDecoder  # texts of a catalogue are written the same way in TOML and JSON, and this is C

    read, entries = JSONDecoder().raw_decode, dict[str, str]()
    for line in (Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8").splitlines():
        if line.startswith('"'):
            text, end = read(line)
            entries[text], _ = read(line, line.index('"', end))
    return entries
