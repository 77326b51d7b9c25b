"""An ensemble of language models: averaged next-token distributions, or a vote over whole answers."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelab.data.prepare import Sources, Split
from tunelab.ensemble.combine import mixture_weights
from tunelab.ensemble.evaluated import Evaluated, Result, place_of_best, primary
from tunelab.ensemble.measures import gain, ratio
from tunelab.ensemble.members import Place, check_alike, check_rows, splits_of
from tunelab.ensemble.outputs import encoded
from tunelab.ensemble.selection import forward
from tunelab.ensemble.texts import (
    answered,
    asked_of,
    check_vocabulary,
    evaluate,
    token_likelihoods,
    with_answers,
)
from tunelab.equipment import objective
from tunelab.errors import ConfigError
from tunelab.generate.sample import sampled
from tunelab.restore import Trained
from tunelab.tasks.instruction import Instruction


@dataclass(frozen=True)
class Sampling:
    """How a model is asked several times.

    Attributes:
        count: Answers of each member; 0 takes its one greedy answer.
        temperature: Above 0; higher says more different things.
        seed: Of the draws.
        pattern: What of an answer is voted on, as a regular expression; None takes all of it.
    """

    count: int = 0
    temperature: float = 0.7
    seed: int = 0
    pattern: str | None = None


def restored(places: Sequence[Place]) -> tuple[list[Trained], Sources]:
    """All members at once, and their splits.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    members = [place.restore() for place in places]
    names = [place.name for place in places]
    check_alike(members, names)
    sources = splits_of(members[0])
    for member, name in zip(members[1:], names[1:], strict=True):
        one, first = member.settings, members[0].settings
        if one.data != first.data or one.seed != first.seed:
            check_rows(sources, splits_of(member), (names[0], name))
    return members, sources


def mixture(places: Sequence[Place], method: str, select: int | None) -> tuple[Result, Trained, Sources]:
    """Average the next-token distributions of several models.

    Args:
        places: Where the models lie.
        method: soft for equal weights, weighted for those under which validation is likeliest.
        select: Members at most, chosen among all for what they add to each other; None takes all.
    """
    members, sources = restored(places)
    names = [place.name for place in places]
    examples = [encoded(member, sources.splits["validation"]) for member in members]
    check_vocabulary(list(zip(names, examples, strict=True)))
    likely = np.stack([token_likelihoods(m, e) for m, e in zip(members, examples, strict=True)], axis=1)  # (N, K)

    def loss(chosen: Sequence[int]) -> float:
        return -float(np.log(np.maximum(likely[:, list(chosen)].mean(axis=1), 1e-300)).mean())

    losses = [loss([k]) for k in range(len(members))]
    best = place_of_best(losses, lower=True)
    chosen = list(range(len(members))) if select is None else forward(losses, loss, select)
    equal = [1 / len(chosen)] * len(chosen)
    weights = equal if method == "soft" else mixture_weights(likely[:, chosen]).tolist()
    taken = [members[k] for k in chosen]
    validation = evaluate(taken, weights, sources.splits["validation"])
    rows = asked_of(members[0], sources.splits["test"])
    test = evaluate(taken, weights, sources.splits["test"], rows)
    single = evaluate([members[best]], [1.0], sources.splits["test"], rows)
    gains = {name: gain(single.measures[name], test.measures[name]) for name in single.measures}
    facts = {"primary": "loss", "validation_of_singles": dict(zip(names, losses, strict=True))}
    result = Result(members[0].task, [names[k] for k in chosen], weights, names[best], validation, test, gains, facts)
    return result, members[0], sources


def voted(places: Sequence[Place], sampling: Sampling) -> tuple[Result, Trained, Sources]:
    """A vote over whole answers: of several models, or of one that is asked several times (Wang et al. 2023).

    Raises:
        ConfigError: If there is but one answer to vote on.
    """
    if len(places) * max(1, sampling.count) < 2:
        raise ConfigError("one model with one answer leaves nothing to vote on; name more runs, or give --samples 8")
    members, sources = restored(places)
    if not all(isinstance(member.task, Instruction) for member in members):
        raise ConfigError("only answers can be voted on, and these runs give none")
    names = [place.name for place in places]
    values = [float((place.folder.read_card().get("best") or {}).get("value", np.nan)) for place in places]
    mode = objective(members[0].settings, members[0].task)[1]
    best = place_of_best(values, lower=mode == "min")
    split = sources.splits["test"]
    rows = asked_of(members[0], split)
    greedy = [answered(member, member.model, split, rows) for member in members]
    heard = greedy if not sampling.count else ballots(members, split, rows, sampling)
    chosen = [elected([said[at] for said in heard], sampling.pattern) for at in range(len(rows))]
    first = members[0]
    test, single = (compared(first, said, sampling.pattern) for said in (chosen, greedy[best]))
    if not test.measures:
        raise ConfigError("no test row asks anything, so there is no answer to vote on")
    gains = {name: gain(single.measures[name], test.measures[name]) for name in single.measures}
    score = "answer_match" if sampling.pattern else primary(objective(first.settings, first.task)[0], test.measures)
    facts: dict[str, Any] = {
        "primary": score,
        "validation_of_singles": dict(zip(names, values, strict=True)),
        "votes": len(heard),
        "agreement": float(np.mean([row["agreement"] for row in chosen if "agreement" in row])),
        "sampling": vars(sampling),
    }
    return Result(first.task, names, None, names[best], Evaluated({}, {}), test, gains, facts), first, sources


def ballots(
    members: Sequence[Trained], split: Split, rows: Sequence[int], sampling: Sampling
) -> list[list[dict[str, Any]]]:
    """Every answer that has a vote: a list over the asked rows for each member, or for each of its draws."""
    if not sampling.count:
        return [answered(member, member.model, split, rows) for member in members]
    found = []
    for member in members:
        for number in range(sampling.count):
            with sampled(sampling.temperature, sampling.seed + number):
                found.append(answered(member, member.model, split, rows))
    return found


def compared(trained: Trained, said: list[dict[str, Any]], pattern: str | None) -> Evaluated:
    """The scores of answers, with `answer_match` where a pattern says what of them counts."""
    found = with_answers(trained, {}, {}, said)
    if pattern:
        found.measures = {"answer_match": matches(found, pattern), **found.measures}
        found.scores["answer_match"] = found.measures["answer_match"].value
    return found


def elected(said: Sequence[dict[str, Any]], pattern: str | None) -> dict[str, Any]:
    """The answer that most agree on; of equally many the one heard first."""
    if any("prediction" not in row for row in said):
        return said[0]
    meant = [meaning(str(row["prediction"]), pattern) for row in said]
    votes = Counter(one for one in meant if one is not None)
    if not votes:  # the pattern is in none of them
        return {**said[0], "agreement": 0.0}
    winner, count = votes.most_common(1)[0]
    return {**said[meant.index(winner)], "agreement": count / len(said)}


def meaning(text: str, pattern: str | None) -> str | None:
    """What of an answer is compared: all but runs of space, or the last match of a pattern; None without one."""
    if pattern is None:
        return " ".join(text.split())
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    return " ".join((found[-1].group(1) if found[-1].re.groups else found[-1].group(0)).split())


def matches(found: Evaluated, pattern: str) -> Any:
    """Share of rows whose answer means what the reference means."""
    rows = [row for row in found.predictions if "prediction" in row]
    pairs = [(meaning(str(row["prediction"]), pattern), meaning(str(row["reference"]), pattern)) for row in rows]
    return ratio(np.array([float(one is not None and one == other) for one, other in pairs]), lower=False)
