"""Redact secrets in anything that is to be written: configs, logs, tracker records.  Pure."""

import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

REDACTED = "[redacted]"

# Environment variables with such names hold secrets; generous, because only their values are looked for.
_SECRET_VARIABLE = re.compile(r"api_?key|token|secret|passw", re.IGNORECASE)
# Config keys: the secret word must end the key, or `micro_tokens`, `tokenizer` and `token_accuracy` would vanish.
_SECRET_KEY = re.compile(
    r"(?:^|[_.\-/])(?:api_?key|access_?key|token|secret|passwd|password|passphrase)$", re.IGNORECASE
)
_TOKEN_TEXT_KEY = re.compile(r"(?:^|_)(?:pad|eos|bos|unk|sep|cls|mask|image|special|start|end)_token$", re.IGNORECASE)
_LOGIN_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_MIN_SECRET_LENGTH = 8  # characters; a shorter value would blank out common words


def is_secret_name(name: str) -> bool:
    """Whether a config key names a secret: `hf_token` and `wandb.api_key` do, `pad_token` and `micro_tokens` do not."""
    return bool(_SECRET_KEY.search(name)) and not _TOKEN_TEXT_KEY.search(name)


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Values of environment variables whose names are those of secrets, longest first.

    Longest first, so that a secret that contains another is replaced as a whole.
    """
    secrets = {
        value
        for name, value in environment.items()
        if _SECRET_VARIABLE.search(name) and len(value) >= _MIN_SECRET_LENGTH
    }
    return sorted(secrets, key=len, reverse=True)


def redact(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """A copy of `value` in which every secret is replaced.

    A secret is any value of at least 8 characters of an environment variable whose name is that of one
    (wherever it stands, also inside a longer text), the text under a key that names one, and the login inside
    an address.  Numbers, booleans and None pass unchanged.

    Args:
        value: Nested mappings, lists, tuples, sets and scalars.
        environment: Holds the secrets; by default that of the process.

    Returns:
        The same structure of dicts, lists, tuples and sets.
    """
    return _redact(value, secret_values(os.environ if environment is None else environment))


def _redact(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {_redact(key, secrets): _redact_field(key, inner, secrets) for key, inner in value.items()}
    if isinstance(value, tuple | set | frozenset | list):
        cleaned = [_redact(inner, secrets) for inner in value]
        return cleaned if isinstance(value, list) else (tuple if isinstance(value, tuple) else set)(cleaned)
    if isinstance(value, str):
        return _redact_text(value, secrets)
    if isinstance(value, PurePath | bytes):
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        cleaned_text = _redact_text(text, secrets)
        return value if cleaned_text == text else cleaned_text
    return value


def _redact_field(key: Any, value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str) and value and is_secret_name(str(key)):
        return REDACTED
    return _redact(value, secrets)


def _redact_text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _LOGIN_IN_ADDRESS.sub(REDACTED, text)
