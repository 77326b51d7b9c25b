"""Secrets do not reach anything that is written."""

from pathlib import Path

import pytest

from tunelab.runs.redact import REDACTED, is_secret_name, redact, secret_values

CANARY = "canary-0123456789"
ENVIRONMENT = {"SOME_API_KEY": CANARY, "HOME": "/home/someone", "SHORT_TOKEN": "abc"}


def test_a_secret_value_is_found_wherever_it_stands() -> None:
    value = {"notes": f"see {CANARY}!", "list": [CANARY, {"deep": (CANARY, 3)}], CANARY: Path(f"/tmp/{CANARY}")}
    cleaned = redact(value, ENVIRONMENT)
    assert CANARY not in repr(cleaned)
    assert cleaned["notes"] == f"see {REDACTED}!"
    assert cleaned["list"][1]["deep"] == (REDACTED, 3)


def test_a_secret_is_read_from_the_process_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    assert redact(f"x={CANARY}") == f"x={REDACTED}"


def test_short_values_and_harmless_variables_change_nothing() -> None:
    text = "abc lives in /home/someone"
    assert redact(text, ENVIRONMENT) == text


def test_a_secret_inside_a_longer_secret_leaves_no_rest() -> None:
    environment = {"A_TOKEN": "12345678", "B_TOKEN": "12345678-and-more"}
    assert secret_values(environment) == ["12345678-and-more", "12345678"]
    assert redact("12345678-and-more", environment) == REDACTED


@pytest.mark.parametrize("name", ["api_key", "wandb.api_key", "hf_token", "token", "DB_PASSWORD", "client-secret"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)
    assert redact({name: "x"}, {}) == {name: REDACTED}


@pytest.mark.parametrize(
    "name", ["micro_tokens", "max_new_tokens", "tokenizer", "val/token_accuracy", "pad_token", "eos_token", "monitor"]
)
def test_names_that_only_look_like_secrets_stay_readable(name: str) -> None:
    assert redact({name: "value"}, {}) == {name: "value"}


def test_numbers_and_empty_values_stay_what_they_are() -> None:
    value = {"token": None, "secret": "", "api_key": 3, "lr": 1e-3, "flags": [True, None]}
    assert redact(value, ENVIRONMENT) == value


def test_a_login_inside_an_address_is_taken_out() -> None:
    assert redact("https://me:pw12@host/x.git", {}) == f"https://{REDACTED}@host/x.git"
    assert redact("https://host:8080/a@b", {}) == "https://host:8080/a@b"
