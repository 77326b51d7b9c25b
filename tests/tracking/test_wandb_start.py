"""When a run goes online, as a table of decisions."""

from pathlib import Path

import pytest

from tunelab.config.schema import LoggerConfig
from tunelab.errors import ConfigError
from tunelab.tracking.wandb_start import choose_wandb_mode, read_netrc

HOSTS = ("api.example.com", "api.behind.example.com")
LOGIN = "# machine ghost password x\nmachine api.example.com\n  login user\n  password abcdefgh\n"
KEY = {"WANDB_API_KEY": "k" * 40}


@pytest.mark.parametrize(
    ("env", "netrc_text", "asked", "mode"),
    [
        ({}, None, "auto", "offline"),
        ({}, None, None, "offline"),
        (KEY, None, "auto", "online"),
        ({"WANDB_API_KEY": "  "}, None, "auto", "offline"),
        ({}, LOGIN, "auto", "online"),
        ({}, LOGIN.replace("api.example", "api.behind.example"), "auto", "online"),
        ({}, LOGIN.replace("api.example", "other.example"), "auto", "offline"),
        ({}, "machine api.example.com login user", "auto", "offline"),
        ({}, 'machine "broken', "auto", "offline"),
        ({"WANDB_BASE_URL": "https://own.example.com:8080"}, LOGIN, "auto", "offline"),
        ({"WANDB_BASE_URL": "https://own:8080"}, "machine own:8080 login u password p", "auto", "online"),
        ({**KEY, "WANDB_MODE": "offline"}, None, "auto", "offline"),
        ({**KEY, "WANDB_MODE": "dryrun"}, None, "auto", "offline"),
        ({**KEY, "WANDB_MODE": "disabled"}, None, "auto", "disabled"),
        ({**KEY, "WANDB_MODE": "disabled"}, None, "online", "online"),
        ({"WANDB_MODE": "online"}, None, "auto", "offline"),  # without a key wandb would ask for one
        ({}, None, "online", "offline"),
        (KEY, None, "offline", "offline"),
        (KEY, None, "disabled", "disabled"),
    ],
)
def test_the_mode_follows_config_then_environment_then_keys(
    env: dict[str, str], netrc_text: str | None, asked: str | None, mode: str
) -> None:
    assert choose_wandb_mode(env, netrc_text, LoggerConfig(kind="wandb", mode=asked), hosts=HOSTS).mode == mode


@pytest.mark.parametrize(("env", "asked"), [({}, "onlin"), ({"WANDB_MODE": "shared"}, "auto")])
def test_an_unknown_mode_names_the_legal_ones(env: dict[str, str], asked: str) -> None:
    with pytest.raises(ConfigError, match="auto, online, offline, disabled"):
        choose_wandb_mode(env, None, LoggerConfig(kind="wandb", mode=asked), hosts=HOSTS)


def test_no_decision_ever_tells_the_key() -> None:
    assert "k" * 8 not in repr(choose_wandb_mode(KEY, None, LoggerConfig(kind="wandb", mode="auto")))


def test_the_netrc_file_is_found_through_its_variable(tmp_path: Path) -> None:
    path = tmp_path / "login"
    assert read_netrc({"NETRC": str(path)}) is None
    path.write_text(LOGIN)
    assert read_netrc({"NETRC": str(path)}) == LOGIN
