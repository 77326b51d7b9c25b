"""Secrets do not reach anything that is written."""

import io
import sys
import time
from pathlib import Path

import pytest

from tunelab.runs.redact import REDACTED, RedactingStream, is_secret_name, redact, redact_row, secret_values

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


@pytest.mark.parametrize(
    "name",
    "OPENAI_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY HF_TOKEN GH_PAT DB_PASSWORD STRIPE_SECRET".split(),
)
def test_a_variable_of_such_a_name_holds_a_secret(name: str) -> None:
    assert redact(f"see {CANARY}", {name: CANARY}) == f"see {REDACTED}"


@pytest.mark.parametrize("name", ["PWD", "HOME", "PATH", "KEYBOARD", "LANG", "MONKEY", "XAUTHORITY"])
def test_an_ordinary_variable_is_left_alone(name: str) -> None:
    assert redact(f"see {CANARY}", {name: CANARY}) == f"see {CANARY}"


def test_a_path_that_is_there_is_no_secret(tmp_path: Path) -> None:
    assert secret_values({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path)}) == []


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdEFGH0123456789xyz",
        "sk-ant-" + "api03-abcdefGHIJ_klmno",
        "hf_abcdefghijklmnopqrstuvwxyz0123",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrst0123456789abcdef",
        "github_pat_11ABCDEFG0abcdefghijkl_mnop",
        "xoxb-123456789012-abcdefGHIJ",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123_-",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNz\\n",
    ],
)
def test_a_key_is_known_by_its_shape(key: str) -> None:
    for text in (key, f"token {key}.", f"--key={key}", f'{{"x": "{key}"}}'):
        cleaned = redact(text, {})
        assert key not in cleaned and REDACTED in cleaned and "MIIE" not in cleaned and "b3Blb" not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "task-learning-with-words-2024",
        "sk-learn is a nickname",
        "risk-adjusted-return-2023-q4",
        "a sha 3f786850e387550fdab836ed7e6dc881de23001b",
        "hf_hub and AKIA alone",
        "micro_tokens=4096 model.tokenizer=package:tunelab.starter/model data.columns.label=answer",
        "max_new_tokens=64, pad_token=<pad>, eos_token='</s>'",
        "eyJ is how base64 of an object begins",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text, {}) == text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("+logger.api_key=abc123", f"+logger.api_key={REDACTED}"),
        ("run --password='hunter2' now", f"run --password='{REDACTED}' now"),
        ("https://host/x?token=abc123&y=1", f"https://host/x?token={REDACTED}&y=1"),
        ("Authorization: Bearer abcdef0123456789", f"Authorization: Bearer {REDACTED}"),
        ("redis://:pw12@host", f"redis://{REDACTED}@host"),
        ("api_key=null", "api_key=null"),
    ],
)
def test_a_value_beside_the_name_of_a_secret_is_taken_out(text: str, cleaned: str) -> None:
    assert redact(text, {}) == cleaned


def test_rows_of_data_may_speak_of_passwords_but_hold_no_keys() -> None:
    row = {"row": 1, "prediction": "password=hunter2", "target": "sk-abcdefgh0123456789", "token": "the"}

    assert redact_row(row) == {**row, "target": REDACTED}


def test_what_was_typed_under_a_secret_name_is_found_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "+logger.api_key=typed-canary-77"])

    assert redact("notes: typed-canary-77") == f"notes: {REDACTED}"


def test_a_long_text_takes_time_in_proportion_to_its_length() -> None:
    started = time.process_time()

    redact("a" * 2_000_000 + "=" + "-" * 500_000 + "sk-" * 100_000 + "-----BEGIN PRIVATE KEY-----" * 1000, {})

    assert time.process_time() - started < 5


def test_a_guarded_stream_lets_no_secret_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", CANARY)
    buffer = io.StringIO()
    stream = RedactingStream(buffer)

    print(f"the word is {CANARY}", file=stream)
    stream.writelines([CANARY, "\n"])

    assert buffer.getvalue() == f"the word is {REDACTED}\n{REDACTED}\n"
