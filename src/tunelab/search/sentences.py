"""How trials are told in a line each."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tunelab.search.ledger import WORDS

PLAIN = ("sampler", "grid")  # where most configurations come from: not worth a word
LONGEST = 120  # characters of a reason


def sentence(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str] = ()) -> str:
    """One line for a trial that has ended.

    Args:
        trial: As the study has it.
        objectives: Names of its scores.
        limits: Names of the scores that must stay below a limit.
    """
    origin = str(trial.user_attrs.get("origin", "sampler"))
    who = f"trial {trial.number}" if origin in PLAIN else f"trial {trial.number} ({origin})"
    return f"{who}: {ending(trial, objectives, limits)}  {settings(trial.params)}"


def ending(trial: FrozenTrial, objectives: Sequence[str], limits: Sequence[str]) -> str:
    """What became of a trial."""
    if trial.state is TrialState.COMPLETE:
        excess = trial.user_attrs.get("excess") or []
        beyond = [name for name, over in zip(limits, excess, strict=False) if over > 0]
        scores = "  ".join(f"{name} {value:.5g}" for name, value in zip(objectives, trial.values, strict=True))
        return scores + (f"  above the limit of {', '.join(beyond)}" if beyond else "")
    if trial.state is TrialState.PRUNED:
        curve = trial.intermediate_values
        at = f" after validation {max(curve)} at {curve[max(curve)]:.5g}" if curve else ""
        return f"pruned{at}"
    kind = trial.user_attrs.get("kind")
    reason = (str(trial.user_attrs.get("reason", "")).splitlines() or [""])[0]
    cut = reason if len(reason) <= LONGEST else reason[: LONGEST - 3] + "..."
    return WORDS[trial.state] + (f" ({kind}: {cut})" if kind else "")


def settings(params: Mapping[str, Any]) -> str:
    """A configuration on one line, numbers short."""
    return "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def values(found: Sequence[float]) -> str:
    """Scores on one line."""
    return " ".join(f"{value:.5g}" for value in found)


def clock(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
