"""Whether Weights & Biases goes online: a pure decision, so that training never meets a question.

Left to itself, wandb asks for a key on a terminal, raises without one, and waits 90 seconds for a network.
"""

import os
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tunelab.errors import ConfigError

MODES = ("auto", "online", "offline", "disabled")
_OLD_NAMES = {"run": "online", "dryrun": "offline"}  # what wandb also accepts in WANDB_MODE


class Choice(NamedTuple):
    """What was decided and why."""

    mode: str  # online, offline or disabled
    reason: str
    explicit: bool  # somebody asked for this mode, so it needs no hint


def choose_mode(
    env: Mapping[str, str], netrc_text: str | None, config: Mapping[str, Any], *, hosts: tuple[str, ...] = ()
) -> Choice:
    """Decide from the config, the environment and stored logins, in this order.

    An explicit `mode` in the config wins, then WANDB_MODE, then whether a key for the host is at hand.  `online`
    without any key becomes offline: wandb would stop and ask.

    Args:
        env: Environment variables.
        netrc_text: Content of the netrc file; None where there is none.
        config: The logger block; its `mode` counts.
        hosts: Host names (with port, if any) whose stored login counts, besides that of WANDB_BASE_URL.

    Raises:
        ConfigError: If the mode is unknown.
    """
    asked, source = str(config.get("mode") or "auto"), "logger.mode"
    if asked == "auto" and env.get("WANDB_MODE"):
        asked, source = _OLD_NAMES.get(env["WANDB_MODE"], env["WANDB_MODE"]), "WANDB_MODE"
    if asked not in MODES:
        raise ConfigError(f"{source} is {asked!r}; wandb would refuse it; choose one of {', '.join(MODES)}")
    key = _key_source(env, netrc_text, hosts)
    if asked in ("offline", "disabled"):
        return Choice(asked, f"{source}={asked}", True)
    if key is None:
        reason = "no W&B key found" if asked == "auto" else f"{source}=online, but no W&B key was found"
        return Choice("offline", reason, False)
    return Choice("online", f"key from {key}", asked == "online")


def _key_source(env: Mapping[str, str], netrc_text: str | None, hosts: tuple[str, ...]) -> str | None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if env.get(name, "").strip():
            return name
    own = urlsplit(env.get("WANDB_BASE_URL", "")).netloc
    wanted = (own,) if own else hosts
    return "netrc" if netrc_text is not None and _has_login(netrc_text, wanted) else None


def _has_login(text: str, hosts: tuple[str, ...]) -> bool:
    """Whether netrc text holds a password for one of the hosts; unreadable text holds none."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    try:
        words = shlex.split(" ".join(lines))
    except ValueError:
        return False
    machine: str | None = None
    for word, following in pairwise(words):
        if word == "machine":
            machine = following
        elif word == "default":
            machine = None
        elif word == "password" and machine in hosts and following:
            return True
    return False


def read_netrc(env: Mapping[str, str]) -> str | None:
    """Content of the file that NETRC names, else of the one in the home folder; None if there is none to read."""
    candidates = [env["NETRC"]] if env.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for candidate in candidates:
        try:
            return Path(os.path.expanduser(candidate)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return None
