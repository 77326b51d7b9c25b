"""Redact secrets in anything that is written: configs, logs, tables, tracker records, messages on the terminal.

A secret is known by its place (a setting or an environment variable whose name is that of one, with its value wherever
it stands), or by its shape (a key of a known service, a private key, a login in an address).
"""

import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any, TextIO, cast

REDACTED = "[redacted]"

# Environment variables with such names hold secrets; generous, because only their values are looked for.
_SECRET_VARIABLE = re.compile(
    r"api_?key|token|secret|passw|passphrase|credential|private|webhook|_dsn$|(?:^|_)(?:key|key_?id|pat|auth)s?$|_pwd$",
    re.IGNORECASE,
)
# Config keys: the secret word must end the key, or `micro_tokens`, `tokenizer` and `token_accuracy` would vanish.
_SECRET_KEY = re.compile(
    r"(?:^|[_.\-/])(?:(?:api|access|account|secret|private|signing|encryption|auth|service|openai|anthropic|wandb|hf|aws"
    r"|azure|google|gcp|gemini|mistral|cohere|groq)[_\-]?key(?:[_\-]?id)?|token|secret|secrets|passwd|password|pwd|pat"
    r"|passphrase|credentials?|webhook)$",
    re.IGNORECASE,
)
_UPPER_KEY = re.compile(r"(?:[A-Z][A-Z0-9]*_)+KEY(?:_ID)?")
_TOKEN_TEXT_KEY = re.compile(r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|image|special|start|end)_token$", re.IGNORECASE)
_LOGIN_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)")
_PAIR = re.compile(
    r"(?<![\w.\-/])(?P<name>[\w.\-/]{0,100}\w)(?P<sign>\\?[\"']?=\\?[\"']?)(?P<value>[^\s\"'\\,&;)\]}]+)"
)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:(?:(?!-----BEGIN).)*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|[A-Za-z0-9+/=\\\s]*)"
    r"|(?<![A-Za-z0-9])(?:"
    r"sk-(?=[A-Za-z_\-]{0,100}\d)[A-Za-z0-9_\-]{16,}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|A(?:KIA|SIA)[A-Z0-9]{16}(?![A-Za-z0-9])|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[A-Za-z0-9_\-]{16,}|xox[a-z]-[A-Za-z0-9\-]{10,}|xapp-[A-Za-z0-9\-]{10,}|AIza[A-Za-z0-9_\-]{30,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_\-]{40,}|dckr_pat_[A-Za-z0-9_\-]{16,}|wandb_v1_[A-Za-z0-9_]{16,}"
    r"|SG\.[A-Za-z0-9_\-]{16,100}\.[A-Za-z0-9_\-]{16,}"
    r"|eyJ[A-Za-z0-9_\-]{8,2000}\.eyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)?)",
    re.DOTALL,
)
_BEARER = re.compile(r"(?<=[Bb]earer )[A-Za-z0-9._~+/\-]{12,}=*")
_MIN_SECRET_LENGTH = 8  # characters; a shorter value would blank out common words
_typed_secrets = set[str]()  # values that callers in Python gave under secret names


def is_secret_name(name: str) -> bool:
    """Whether a config key names a secret: `hf_token` and `wandb.api_key` do, `pad_token` and `micro_tokens` do not."""
    known = _SECRET_KEY.search(name) or _UPPER_KEY.fullmatch(name)
    return known is not None and not _TOKEN_TEXT_KEY.search(name)


def secret_values(environment: Mapping[str, str], words: Iterable[str] = ()) -> list[str]:
    """Values of environment variables and of overrides whose names are those of secrets, longest first.

    Longest first, so that a secret that contains another is replaced as a whole.  A path that is there is none: the
    file it names may hold one.

    Args:
        environment: Variables with their values.
        words: Of a command line.
    """
    secrets = {value for name, value in environment.items() if _SECRET_VARIABLE.search(name)}
    for word in words:
        name, _, value = word.partition("=")
        if is_secret_name(name.lstrip("+~")):
            secrets.add(value.strip("'\""))
    long_enough = {value for value in secrets if len(value) >= _MIN_SECRET_LENGTH and not os.path.exists(value)}
    return sorted(long_enough, key=len, reverse=True)


def remember_secrets(words: Iterable[str]) -> None:
    """Take the secrets among overrides that are not on the command line of this process for what they are."""
    _typed_secrets.update(secret_values({}, words))


def redact(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """A copy of `value` in which every secret is replaced.

    A secret is any value of at least 8 characters of an environment variable or override whose name is that of one
    (wherever it stands, also inside a longer text), the text under a key that names one, what has the shape of a key,
    and the login inside an address.  Numbers, booleans and None pass unchanged.

    Args:
        value: Nested mappings, lists, tuples, sets and scalars.
        environment: Holds the secrets; by default that of the process, with its command line.

    Returns:
        The same structure of dicts, lists, tuples and sets.
    """
    return _redact(value, known_secrets() if environment is None else secret_values(environment))


def redact_row(row: Any) -> Any:
    """A row of data or predictions in which every secret is replaced that is known by its value or its shape.

    What a text says of passwords is the text's own affair: it may be what the model was asked.
    """
    return _redact(row, known_secrets(), names=False)


def known_secrets() -> list[str]:
    """The secrets of this process: of its environment, its command line, and those remembered."""
    return _known_secrets(frozenset(os.environ.items()), tuple(sys.argv), frozenset(_typed_secrets))


@lru_cache(maxsize=4)
def _known_secrets(environment: frozenset[tuple[str, str]], words: tuple[str, ...], more: frozenset[str]) -> list[str]:
    return sorted({*secret_values(dict(environment), words), *more}, key=len, reverse=True)


def _redact(value: Any, secrets: list[str], *, names: bool = True) -> Any:
    if isinstance(value, Mapping):
        return {
            _redact(key, secrets, names=names): _redact_field(key, inner, secrets, names=names)
            for key, inner in value.items()
        }
    if isinstance(value, tuple | set | frozenset | list):
        cleaned = [_redact(inner, secrets, names=names) for inner in value]
        return cleaned if isinstance(value, list) else (tuple if isinstance(value, tuple) else set)(cleaned)
    if isinstance(value, str):
        return _redact_text(value, secrets, names=names)
    if isinstance(value, PurePath | bytes):
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        cleaned_text = _redact_text(text, secrets, names=names)
        return value if cleaned_text == text else cleaned_text
    return value


def _redact_field(key: Any, value: Any, secrets: list[str], *, names: bool) -> Any:
    if names and isinstance(value, str) and value and is_secret_name(str(key)):
        return REDACTED
    return _redact(value, secrets, names=names)


def _redact_text(text: str, secrets: list[str], *, names: bool = True) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, REDACTED)
    if len(text) < _MIN_SECRET_LENGTH:
        return text
    text = _LOGIN_IN_ADDRESS.sub(REDACTED, text) if "://" in text else text
    text = _SHAPES.sub(REDACTED, text)
    if not names:
        return text
    text = _BEARER.sub(REDACTED, text) if "earer " in text else text
    return _PAIR.sub(_redact_pair, text) if "=" in text else text


def _redact_pair(match: re.Match[str]) -> str:
    if not is_secret_name(match["name"]) or match["value"] in (REDACTED, "null", "None") or REDACTED in match["value"]:
        return match[0]
    return match["name"] + match["sign"] + REDACTED


class RedactingStream:
    """A text stream to whose writes no secret gets through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, secrets replaced."""
        self._stream.write(_redact_text(text, known_secrets()) if isinstance(text, str) else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, secrets replaced."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Let no secret through standard output and standard error of this process from now on."""
    if not isinstance(sys.stdout, RedactingStream):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: its encoding may lack a letter
        sys.stdout = cast(TextIO, RedactingStream(sys.stdout))
        sys.stderr = cast(TextIO, RedactingStream(sys.stderr))


def flush_output() -> None:
    """Write out what standard output still holds; nothing where its reader, such as `head`, has closed the pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
