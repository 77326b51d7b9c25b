"""One model out of several: their weights averaged, adapters folded in before."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunelab.assemble import Prepared
from tunelab.closing import exportable
from tunelab.data.prepare import SPLITS, Sources, Split
from tunelab.ensemble.by_text import restored
from tunelab.ensemble.evaluated import Evaluated, Result, place_of_best, primary
from tunelab.ensemble.labelled import Kind, evaluated
from tunelab.ensemble.measures import gain, ratio
from tunelab.ensemble.members import Place
from tunelab.ensemble.outputs import outputs
from tunelab.ensemble.selection import greedy_soup
from tunelab.ensemble.texts import asked_of, evaluate
from tunelab.equipment import objective
from tunelab.errors import ConfigError
from tunelab.judging import judge
from tunelab.models.adapter import Adapter
from tunelab.models.merged import merged
from tunelab.restore import Trained
from tunelab.rows import lay_out

State = dict[str, Tensor]


def average(states: Sequence[State]) -> State:
    """The mean of every weight, computed in double; what is no floating number is taken from the first.

    Raises:
        ConfigError: If the models are of different shapes.
    """
    first = states[0]
    for state in states[1:]:
        if {name: weight.shape for name, weight in state.items()} != {n: w.shape for n, w in first.items()}:
            raise ConfigError(
                "the weights have different shapes, so they cannot be averaged; a soup needs one architecture, and one "
                "base model, or --method soft, which combines what models say"
            )
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(weight.dtype)
        if weight.is_floating_point()
        else weight.clone()
        for name, weight in first.items()
    }


def plain_model(trained: Trained) -> Trained:
    """The same model with its adapter folded into plain weights.

    Folding first makes the average right: the mean of products is not the product of means, so low-rank factors must
    not be averaged by themselves.

    Raises:
        ConfigError: If it has a soft prompt, which is no weight of the model.
    """
    settings = trained.settings
    sources = Sources({name: Split() for name in SPLITS}, {}, [])
    prepared = Prepared(settings, trained.task, sources, trained.tokenizer, {}, {}, adapter=trained.adapter)
    found = merged(exportable(prepared), trained.tokenizer)
    if found.lead:
        raise ConfigError(f"{trained.folder.root} has a soft prompt, which cannot be averaged; take --method soft")
    own = replace(settings, adapter={**settings.adapter, "kind": "full"})
    model: Any = found.model
    lay_out(own, trained.task, model)
    trained.fabric.to_device(model.eval())
    return replace(trained, settings=own, adapter=Adapter(model, "full"))


def state_of(trained: Trained) -> State:
    """A copy of the weights on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in trained.model.state_dict().items()}


def ask(trained: Trained, split: Split, *, answers: bool) -> Evaluated:
    """Scores of one model on a split, with those of generated answers where it gives any and they are wanted."""
    task = trained.task
    if task.needs_reference:
        pairs = judge(trained, split)
        margins = np.array([float(row["margin"]) for row in pairs.predictions])
        right = (margins > 0).astype(np.float64)
        measures = {"reward_accuracy": ratio(right, lower=False), "reward_margin": ratio(margins, lower=False)}
        return Evaluated(pairs.scores, measures, pairs.tables, pairs.predictions)
    if task.head == "causal":
        return evaluate([trained], [1.0], split, asked_of(trained, split) if answers else None)
    said, kind = outputs(trained, split), Kind(task, [task])
    logits = kind.logits(kind.spoken([said])[0])
    return evaluated(kind, logits, said, split.rows)


def soup(places: Sequence[Place], *, greedy: bool) -> tuple[Result, Trained, Sources]:
    """Average the weights of several models of one base (Wortsman et al. 2022).

    Args:
        places: Where the models lie.
        greedy: Whether a model is left out where it lowers the validation score of the average.

    Returns:
        The result, the averaged model, and the splits.
    """
    members, sources = restored(places)
    members = [plain_model(member) for member in members]
    check_scales(members)
    names, pot = [place.name for place in places], members[0]
    states = [state_of(member) for member in members]
    valid = sources.splits["validation"]
    monitor = objective(pot.settings, pot.task)[0]

    def tried(chosen: Sequence[int], split: Split, *, answers: bool = False) -> Evaluated:
        pot.model.load_state_dict(average([states[k] for k in chosen]))
        return ask(pot, split, answers=answers)

    alone = [tried([k], valid) for k in range(len(members))]
    name = primary(monitor, alone[0].measures)
    lower = alone[0].measures[name].lower
    values = [found.measures[name].value for found in alone]
    best, sign = place_of_best(values, lower=lower), -1 if lower else 1
    chosen = list(range(len(members)))
    if greedy:
        chosen, _ = greedy_soup([sign * v for v in values], lambda some: sign * tried(some, valid).measures[name].value)
    single = tried([best], sources.splits["test"], answers=True)
    validation = tried(chosen, valid)
    test = tried(chosen, sources.splits["test"], answers=True)
    gains = {score: gain(single.measures[score], test.measures[score]) for score in single.measures}
    facts = {"primary": name, "validation_of_singles": dict(zip(names, values, strict=True))}
    weights = [1 / len(chosen)] * len(chosen)
    result = Result(pot.task, [names[k] for k in chosen], weights, names[best], validation, test, gains, facts)
    return result, pot, sources


def check_scales(members: Sequence[Trained]) -> None:
    """Refuse models of numbers that standardise them differently: their heads speak in different units.

    Raises:
        ConfigError: If they do.
    """
    scales = {(tuple(getattr(m.task, "mean", ())), tuple(getattr(m.task, "std", ()))) for m in members}
    if len(scales) > 1:
        raise ConfigError(
            "the runs standardise their targets differently, so their weights cannot be averaged; train them on "
            "the same rows, or take --method soft"
        )
