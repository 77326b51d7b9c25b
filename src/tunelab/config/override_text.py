"""Settings as words of the command line, in Hydra's grammar: those of Python, paths, and what a user typed."""

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from tunelab.config.quoting import names_path, path_text, path_word, quote_hydra
from tunelab.errors import ConfigError
from tunelab.language.translation import translate


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
    if isinstance(value, Path):
        return path_text(value)
    if isinstance(value, str):
        return quote_hydra(value)
    if isinstance(value, int | float):
        return repr(value)
    return value_text(value.item()) if hasattr(value, "item") else value_text(str(value))  # numbers of numpy and torch


def plain_text(word: str) -> str | None:
    """The text that Hydra takes from a word `key=value`; None where it reads no text there, or nothing at all."""
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None
    value = value.text if isinstance(value, QuotedString) else value
    return value if isinstance(value, str) else None


OUTSIDE_ASCII = re.compile(r"[^\x00-\x7f]")
TOKEN = re.compile(
    r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^\[\]{}(),'\"]+|.", re.DOTALL
)  # a quoted text, a value, or a sign


def quote_typed(word: str) -> str:
    """A word as a user typed it, its value put into Hydra's quotes where it can only be meant as it stands.

    That is a file or folder that exists, or the value of a key that names one, which Hydra cannot read; and letters
    that Hydra's grammar does not know.

    Example:
        >>> quote_typed("hydra.run.dir=runs (new)"), quote_typed("name=été"), quote_typed("lr=1e-3,1e-4")
        ("hydra.run.dir='runs (new)'", "name='été'", 'lr=1e-3,1e-4')
    """
    key, equals, value = word.partition("=")
    if not equals or not value or word.startswith("-") or value[0] in "'\"" or plain_text(word) == value:
        return word
    if names_path(key) and exists(value):
        return path_word(key, value)
    if readable(word):
        return word
    pieces = value.split(",")
    if names_path(key) and len(pieces) > 1 and all(map(exists, pieces)):  # a search over files
        return f"{key}={','.join(map(path_text, pieces))}"
    quoted = quote_letters(word) if OUTSIDE_ASCII.search(value) else word
    if quoted != word and readable(quoted):
        return quoted
    return path_word(key, value) if names_path(key) and value[0] not in "[{" else word


def quote_letters(word: str) -> str:
    """A word with those values in quotes that hold letters which Hydra's grammar does not know."""
    key, _, value = word.partition("=")
    parts, braces = list[str](), 0
    for token in TOKEN.findall(value):
        braces += (token == "{") - (token == "}")
        name, colon, inner = token.partition(":") if braces else ("", "", token)
        if OUTSIDE_ASCII.search(token) and token[0] not in "'\"":
            parts.append(f"{name}{colon}{' ' * (len(inner) - len(inner.lstrip()))}{quote_hydra(inner.strip())}")
        else:
            parts.append(token)
    return f"{key}={''.join(parts)}"


def exists(text: str) -> bool:
    """Whether there is a file or a folder of that name."""
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a byte that no name has, the home of nobody
        return False


def readable(word: str) -> bool:
    """Whether Hydra can read a word."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def unreadable_reason(word: str) -> str | None:
    """What to type instead of a word that Hydra cannot read; None where it can."""
    if readable(word):
        return None
    key, equals, value = word.partition("=")
    better = f"{key}={quote_hydra(value)}"
    if not equals or not readable(better):
        return translate("it is no setting; settings are typed as key=value")
    return translate(
        "some of its signs have a meaning of their own here; put it in quotes: {quoted}", quoted=shlex.quote(better)
    )


def search_path_word(words: Sequence[str], folders: Sequence[str | Path]) -> str:
    """One word `hydra.searchpath=[...]` for the places that other such words name, and more folders before them."""
    places = [*(f"file://{folder}" for folder in folders), *search_places(words)]
    return f"hydra.searchpath=[{','.join(map(path_text, dict.fromkeys(places)))}]"


def search_path_folders(words: Sequence[str]) -> list[Path]:
    """The folders that words `hydra.searchpath=[...]` name."""
    return [Path(place.removeprefix("file://")) for place in search_places(words) if not place.startswith("pkg://")]


def search_places(words: Sequence[str]) -> list[str]:
    """The places that words `hydra.searchpath=[...]` name, as they are written there."""
    values = [OverridesParser.create().parse_override(word).value() for word in words]
    places = [place for value in values for place in (value if isinstance(value, list) else [value])]
    return [str(place.text if isinstance(place, QuotedString) else place) for place in places]


def searchpath_overrides(hydra: DictConfig) -> list[str]:
    """The words that a process needs to compose from the same files: search path, primary config; none for conf/ alone.

    Args:
        hydra: Hydra's own part of a composed config; it knows of `--config-dir` too.
    """
    typed = [str(word) for word in hydra.overrides.hydra if str(word).startswith("hydra.searchpath=")]
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    name = str(hydra.job.config_name)
    flag = [f"{NAME_FLAG}={name}"] if name != PRIMARY_CONFIG else []
    return [*flag, *([search_path_word(typed, folders)] if typed or folders else [])]


PRIMARY_CONFIG = "config"  # conf/config.yaml, unless --config-name names another
NAME_FLAG = "--config-name"


def primary_config(words: Sequence[str]) -> str:
    """The name of the primary config that a completed command line composes from."""
    named = [word.partition("=")[2] for word in words if word.startswith(f"{NAME_FLAG}=")]
    return named[-1] if named else PRIMARY_CONFIG


def config_folders(words: Sequence[str], conf: Path) -> list[Path]:
    """The folders that options are looked for in: conf/, then those of a word `hydra.searchpath=[...]`.

    Folders inside packages (`pkg://`) are found without importing the package.
    """
    folders = [conf]
    for place in search_places([word for word in words if word.startswith("hydra.searchpath=") and readable(word)]):
        folders += package_folders(place) if place.startswith("pkg://") else [Path(place.removeprefix("file://"))]
    return [folder for folder in folders if folder.is_dir()]


def package_folders(place: str) -> list[Path]:
    """The folders of `pkg://NAME.inner`; none where the package is not installed."""
    name, _, inner = place.removeprefix("pkg://").replace("/", ".").partition(".")
    spec = find_spec(name) if name.isidentifier() else None
    roots = spec.submodule_search_locations or [] if spec is not None else []
    return [Path(root, *inner.split(".")) if inner else Path(root) for root in roots]


def gather_flags(words: Sequence[str]) -> list[str]:
    """A command line whose flags on configs are words: one search path, and the name as `--config-name=NAME`.

    A file of settings by itself (`tunelab train FILE.yaml`) is an experiment.

    Raises:
        ConfigError: If a folder does not exist, or a flag has no value.
    """
    folders, names, paths, rest = list[str](), list[str](), list[str](), list[str]()
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd", NAME_FLAG, "-cn"):
            value = value if equals else next(following, "")
            if not value:
                raise ConfigError(translate("{flag} has no value; give a name or a folder behind it", flag=flag))
            (names if flag in (NAME_FLAG, "-cn") else folders).append(value)
        elif word.startswith("hydra.searchpath="):
            paths.append(word)
        elif word.endswith((".yaml", ".yml")) and "=" not in word:
            rest.append(f"experiment={word}")
        else:
            rest.append(word)
    if missing := [folder for folder in folders if not Path(folder).expanduser().is_dir()]:
        raise ConfigError(translate("--config-dir {missing}: there is no such folder", missing=missing[0]))
    places = [Path(folder).expanduser().absolute() for folder in folders]
    path = [search_path_word(paths, places)] if paths or places else []
    name = [f"{NAME_FLAG}={names[-1].removesuffix('.yaml')}"] if names else []
    return [*name, *path, *rest]
