"""From a run card to what must be trained to get the run again.  Pure."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tunelab.errors import ConfigError
from tunelab.run_card import LEARNS
from tunelab.tracking.redact import HIDDEN

Card = Mapping[str, Any]
WHOLE = ("finished", "early-stopped", "diverged")  # endings that a repetition can be held against


@dataclass(frozen=True)
class Stage:
    """One training without a break.

    Attributes:
        config: Every setting of it, plain values.
        stop_at: Optimizer steps after which it is left for the next stage; None trains to its end.
    """

    config: dict[str, Any]
    stop_at: int | None


def stages(card: Card) -> list[Stage]:
    """The trainings that make the run again, one after another.

    A resumed run is bit for bit the run without a break, so sessions with the same settings are one stage.  Where
    more epochs or another trainer were asked for half-way, the first settings must be trained up to that very step:
    the learning rate of every step before it followed from them.
    """
    given = again(card["config"])
    told = [*card["sessions"], {"resumed_at": card.get("resumed_at"), "settings": None}]
    starts = [place for place, session in enumerate(told) if session.get("resumed_at") is None]
    found: list[Stage] = []
    for session in told[starts[-1] if starts else 0 :]:  # what came before a fresh start left nothing behind
        config = given | deepcopy(session.get("settings") or {})
        config["trainer"] = {**config["trainer"], "enable_progress_bar": False}
        if found and relevant(found[-1].config) == relevant(config):
            continue
        if found:
            before = {**found[-1].config, "test": False}
            found[-1] = Stage(before, int(session["resumed_at"]))
        found.append(Stage(config, None))
    return found


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may change when a run goes on, and change what it learns."""
    return {name: config.get(name) for name in LEARNS}


def again(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a repetition: no tracker and no search hear of it, and no export is written."""
    quiet = {"resume": None, "trial": {"id": None, "study": None}, "logger": {"kind": "none"}, "save": False}
    return {**deepcopy(dict(config)), **quiet}


def refuse(card: Card, place: str) -> None:
    """Refuse a card that no training can be held against.

    Raises:
        ConfigError: Naming every reason.
    """
    if "ensemble" in card:
        raise ConfigError(
            f"{place} is an ensemble, which trained nothing; its command makes it again: {card['command']}"
        )
    status, faults = str(card.get("status")), list[str]()
    if status not in WHOLE:
        ways = {
            "pre-empted": f"resume={place} finishes it first",
            "running": f"wait for its end, or finish it with resume={place} if its process is gone",
            "pruned": "its search ended it by the scores of other trials, which no card holds",
        }
        faults.append(f"the run is {status} ({card.get('reason')}): {ways.get(status, 'it has no result to repeat')}")
    faults += [
        f"{name} is blacked out in the card, since it held a secret; train it with its config.yaml and that value"
        for name in hidden({key: value for key, value in card.get("config", {}).items() if key != "logger"})
    ]
    if faults:
        raise ConfigError.listing(faults)


def hidden(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of settings that were blacked out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from hidden(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from hidden(inner, name)
    elif isinstance(value, str) and HIDDEN in value:
        yield name
