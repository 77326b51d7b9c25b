"""Whether a repetition gave the same, and if not, whether it is as near as another seed would be.  Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import mean, stdev
from typing import Any

from scipy import stats

Card = Mapping[str, Any]
RESULTS = {"weights_sha256": "the weights", "predictions_sha256": "the predictions"}
LEAST_SEEDS = 3  # with fewer a spread says nothing


@dataclass(frozen=True)
class Spread:
    """Where one more run with another seed would land.

    Attributes:
        low, high: Bounds of a 95 % prediction interval for a single run.
        seeds: Runs it rests on.
    """

    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Line:
    """One score of both runs.

    Attributes:
        spread: None where too few seeds are known.
    """

    name: str
    then: float | None
    now: float | None
    spread: Spread | None = None

    @property
    def same(self) -> bool:
        """Whether not a bit differs; two scores that are no number are the same."""
        return self.then == self.now

    @property
    def inside(self) -> bool | None:
        """Whether the new score lies where another seed would; None where no spread is known."""
        if self.spread is None:
            return None
        return self.now is not None and self.spread.low <= self.now <= self.spread.high


@dataclass(frozen=True)
class Verdict:
    """What a repetition proved.

    Attributes:
        identical: Whether every result that both cards know is equal to the last bit.
        differing: What is not, in words.
        scores: Every score that both have.
    """

    identical: bool
    differing: list[str]
    scores: list[Line]


def judge(then: Card, now: Card, seeds: Sequence[Card] = ()) -> Verdict:
    """Hold a repetition against the run.

    Args:
        then: The card of the run.
        now: The card of the repetition.
        seeds: Cards of runs with the same settings and other seeds.
    """
    differing = []
    if then.get("status") != now.get("status"):
        differing.append(f"it ended {now.get('status')} ({now.get('reason')}), the run {then.get('status')}")
    before, after = then.get("results") or {}, now.get("results") or {}
    known = [name for name in RESULTS if before.get(name) and after.get(name)]
    differing += [f"{RESULTS[name]} differ" for name in known if before[name] != after[name]]
    best = [card.get("best") or {} for card in (then, now)]
    if best[0].get("step") != best[1].get("step"):
        differing.append(f"the best checkpoint is of step {best[1].get('step')}, it was of step {best[0].get('step')}")
    old, new = flat(then), flat(now)
    others = [flat(card) for card in [then, *seeds]] if seeds else []
    lines = [
        Line(name, old[name], new[name], spread([other[name] for other in others if other.get(name) is not None]))
        for name in old
        if name in new
    ]
    differing += [f"{line.name} differs" for line in lines if not line.same]
    proven = bool(known or lines) or then.get("status") == now.get("status") == "diverged"
    if not proven:
        differing.append("the cards share no result, so nothing is proven")
    return Verdict(not differing, differing, lines)


def flat(card: Card) -> dict[str, float | None]:
    """The scores of a card by flat name; None where one is no number."""
    best = card.get("best") or {}
    table = card.get("scores") or {}
    found = {f"{split}/{name}": value for split, scores in table.items() for name, value in scores.items()}
    return ({f"best {best['monitor']}": best["value"]} if "monitor" in best else {}) | found


def spread(values: Sequence[float | None]) -> Spread | None:
    """Where one more run would land with 95 % probability, if scores are normal over seeds (Student's t).

    Returns:
        None below `LEAST_SEEDS` values.
    """
    known = [float(value) for value in values if value is not None and isfinite(value)]
    if len(known) < LEAST_SEEDS:
        return None
    half = float(stats.t.ppf(0.975, len(known) - 1)) * stdev(known) * sqrt(1 + 1 / len(known))
    return Spread(mean(known) - half, mean(known) + half, len(known))


def told(verdict: Verdict) -> list[str]:
    """What is said of each score that is not the same."""
    found = []
    for line in verdict.scores:
        if line.same:
            continue
        words = f"{line.name}: {number(line.then)} then, {number(line.now)} now"
        if line.spread is not None:
            bounds = f"{line.spread.low:.4g} to {line.spread.high:.4g} over {line.spread.seeds} seeds"
            words += f", {'inside' if line.inside else 'OUTSIDE'} the seed spread ({bounds})"
        found.append(words)
    return found


def number(value: float | None) -> str:
    """A score with enough digits to see what differs."""
    return "no number" if value is None else f"{value:.6g}"
