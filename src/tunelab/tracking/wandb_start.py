"""Start of a W&B run: online or offline, its name and id, and one line that says how to open it.

Left alone, wandb prompts for a key on a terminal, raises without one, and waits 90 seconds for a network.
"""

import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tunelab.config.schema import LoggerConfig
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.runs.console import is_main_process, short_path
from tunelab.runs.redact import redact
from tunelab.tracking.wandb_logger import WandbRun

WANDB_MODES = ("auto", "online", "offline", "disabled")
_MODE_ALIASES = {"run": "online", "dryrun": "offline"}  # wandb accepts these in WANDB_MODE too


class ModeChoice(NamedTuple):
    """The mode of a W&B run and the reason for it."""

    mode: str  # online, offline or disabled
    reason: str
    is_explicit: bool  # the user chose this mode, so it needs no hint


def choose_wandb_mode(
    env: Mapping[str, str], netrc_text: str | None, config: LoggerConfig, *, hosts: tuple[str, ...] = ()
) -> ModeChoice:
    """The mode from the config, the environment and stored logins, in this order.

    An explicit `mode` in the config wins, then WANDB_MODE, then whether there is a key for the host.  `online`
    without any key becomes offline: wandb would stop and prompt.

    Args:
        env: Environment variables.
        netrc_text: Content of the netrc file; None where there is none.
        config: The logger block; its `mode` counts.
        hosts: Host names (with port, if any) whose stored login counts, besides that of WANDB_BASE_URL.

    Raises:
        ConfigError: If the mode is unknown.
    """
    mode: str = config.mode or "auto"
    source = "logger.mode"
    if mode == "auto" and env.get("WANDB_MODE"):
        mode, source = _MODE_ALIASES.get(env["WANDB_MODE"], env["WANDB_MODE"]), "WANDB_MODE"
    if mode not in WANDB_MODES:
        raise ConfigError(
            translate(
                "{source} is {mode!r}; wandb would refuse it; choose one of {names}",
                source=source,
                mode=mode,
                names=", ".join(WANDB_MODES),
            )
        )
    key = _key_source(env, netrc_text, hosts)
    if mode in ("offline", "disabled"):
        return ModeChoice(mode, f"{source}={mode}", True)
    if key is None:
        reason = (
            translate("no W&B key found")
            if mode == "auto"
            else translate("{source}=online, but no W&B key was found", source=source)
        )
        return ModeChoice("offline", reason, False)
    return ModeChoice("online", translate("key from {key}", key=key), mode == "online")


def _key_source(env: Mapping[str, str], netrc_text: str | None, hosts: tuple[str, ...]) -> str | None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if env.get(name, "").strip():
            return name
    server = urlsplit(env.get("WANDB_BASE_URL", "")).netloc
    hosts = (server,) if server else hosts
    return "netrc" if netrc_text is not None and _has_login(netrc_text, hosts) else None


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


def start_wandb(
    config: LoggerConfig,
    *,
    folder: Path,
    run_config: Mapping[str, Any],
    name: str,
    monitor: str,
    mode: str,
    resume_from_step: int | None = None,
    tell: Callable[[str], None] = print,
) -> WandbRun | None:
    """Start a W&B run in the mode that `choose_wandb_mode` returns; on the main process only.

    Args:
        config: The logger block: mode, project, entity, group, job_type, tags, notes.
        folder: The run directory; everything goes to `wandb` in it, or in the folder that WANDB_DIR names.
        run_config: The resolved config of the run; secrets are taken out.
        name: Name of the run unless `config` has one.
        monitor: The score that the best checkpoint follows; the run's summary keeps its best value.
        mode: `min` or `max`: which value of `monitor` is best.
        resume_from_step: Not None when the run is resumed: it keeps its W&B id.
        tell: Receives the one line that says how to open an offline run.

    Returns:
        The logger; None if W&B is disabled, or on another process than the main one.

    Raises:
        ConfigError: If the mode is unknown.
    """
    choice = choose_wandb_mode(os.environ, read_netrc(os.environ), config, hosts=_login_hosts())
    if choice.mode == "disabled" or not is_main_process():
        return None
    arguments = {
        **describe_run(os.environ, config, name),
        "id": _wandb_run_id(folder, keep=resume_from_step is not None, agent_id=agent_run_id(os.environ, config)),
        "config": redact(run_config),
    }
    arguments = {
        key: value if key == "config" else redact(value) for key, value in arguments.items() if value is not None
    }
    run = WandbRun(folder, mode=choice.mode, init_arguments=arguments, monitor=monitor, monitor_mode=mode)
    run.start()
    if run.mode == "offline" and run.experiment is not None:
        tell(_offline_hint(choice, wandb_folder(os.environ, folder) / "wandb"))
    return run


def describe_run(env: Mapping[str, str], config: LoggerConfig, name: str) -> dict[str, Any]:
    """Project, name and the like of a run: as set, else as the environment has it, else ours.

    Args:
        env: Environment variables.
        config: The logger block; what it leaves at null is not set.
        name: The run's name where neither says one.
    """
    tags = [config.tags] if isinstance(config.tags, str) else [str(tag) for tag in config.tags]
    from_env = [tag.strip() for tag in env.get("WANDB_TAGS", "").split(",") if tag.strip()]
    return {
        "project": config.project or env.get("WANDB_PROJECT") or "tunelab",
        "entity": config.entity or env.get("WANDB_ENTITY"),
        "group": config.group or env.get("WANDB_RUN_GROUP"),
        "job_type": config.job_type or env.get("WANDB_JOB_TYPE") or "train",
        "tags": [tag for tag in tags if tag] or from_env or None,
        "notes": config.notes or env.get("WANDB_NOTES"),
        "name": config.name or env.get("WANDB_NAME") or name,
    }


def wandb_folder(env: Mapping[str, str], folder: Path) -> Path:
    """The folder in which W&B makes its own: the run's, unless WANDB_DIR names another."""
    return Path(env["WANDB_DIR"]) if env.get("WANDB_DIR") else folder


def agent_run_id(env: Mapping[str, str], config: LoggerConfig) -> str | None:
    """The id that the environment gives to this run, as `wandb agent` does; trials and folds have their own."""
    return None if config.job_type in ("trial", "fold", "study") else env.get("WANDB_RUN_ID") or None


def _offline_hint(choice: ModeChoice, folder: Path) -> str:
    place = short_path(folder)
    look = translate("open with: wandb leet {place}", place=place)
    if choice.is_explicit and choice.mode == "offline":
        return translate("W&B is offline; {look}", look=look)
    reason = choice.reason if choice.mode == "offline" else translate("no answer from the server")
    return translate(
        "W&B is offline ({reason}); {look} | upload with: wandb login && wandb sync {place}/offline-run-*",
        reason=reason,
        look=look,
        place=place,
    )


def _login_hosts() -> tuple[str, ...]:
    """Hosts whose login wandb would use: the configured server and the one behind it, if it is a proxy."""
    import wandb  # half a second that runs without wandb need not pay

    try:
        server = str(wandb.setup().settings.base_url)
    except Exception:  # a broken settings file of wandb: WANDB_API_KEY is still looked at
        return ()
    try:
        from wandb.sdk.lib.urls import forge_upstream_url  # not part of wandb's public interface

        servers = (server, forge_upstream_url(server))
    except ImportError:
        servers = (server, server)
    return tuple(dict.fromkeys(urlsplit(address).netloc for address in servers))


def _wandb_run_id(folder: Path, *, keep: bool, agent_id: str | None = None) -> str:
    """The W&B id of this run directory: its former one when the run is resumed, else the given or a new one."""
    note = folder / "wandb" / "id.txt"
    if keep and note.is_file() and (known := note.read_text(encoding="utf-8").strip()):
        return known
    fresh = agent_id or secrets.token_hex(4)  # from the system: the seeded generators stay untouched
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(fresh + "\n", encoding="utf-8")
    return fresh
