"""Model soups: the weights of several models averaged into one, adapters merged first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.ensemble.combination import greedy_soup_selection
from tunelab.ensemble.ensemble_members import MemberSource, model_outputs
from tunelab.ensemble.ensemble_scores import (
    EnsembleResult,
    SplitEvaluation,
    index_of_best,
    paired_gain,
    primary_metric,
    ratio_metric,
)
from tunelab.ensemble.label_ensemble import OutputKind, evaluate_outputs
from tunelab.ensemble.text_ensemble import evaluate_mixture, load_members, rows_to_answer
from tunelab.errors import ConfigError
from tunelab.models.adapter_export import merge_adapter_weights
from tunelab.models.adapters import AdaptedModel
from tunelab.training.components import RunComponents
from tunelab.training.device_placement import choose_packing
from tunelab.training.evaluate import evaluate_split
from tunelab.training.lifecycle import unquantized_adapter
from tunelab.training.load_run import TrainedRun
from tunelab.training.trainer import resolve_monitor

StateDict = dict[str, Tensor]


def average_weights(states: Sequence[StateDict]) -> StateDict:
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


def merge_adapter_into_base(trained: TrainedRun) -> TrainedRun:
    """The same model with its adapter folded into plain weights.

    Folding first makes the average right: the mean of products is not the product of means, so low-rank factors must
    not be averaged by themselves.

    Raises:
        ConfigError: If it has a soft prompt, which is no weight of the model.
    """
    settings = trained.settings
    sources = DataSplits({name: Split() for name in SPLITS}, {}, [])
    prepared = RunComponents(settings, trained.task, sources, trained.tokenizer, {}, {}, adapter=trained.adapter)
    found = merge_adapter_weights(unquantized_adapter(prepared), trained.tokenizer)
    if found.lead:
        raise ConfigError(f"{trained.folder.root} has a soft prompt, which cannot be averaged; take --method soft")
    own = replace(settings, adapter={**settings.adapter, "kind": "full"})
    model: Any = found.model
    choose_packing(own, trained.task, model)
    trained.fabric.to_device(model.eval())
    return replace(trained, settings=own, adapter=AdaptedModel(model, "full"))


def cpu_state_dict(trained: TrainedRun) -> StateDict:
    """A copy of the weights on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in trained.model.state_dict().items()}


def evaluate_soup(trained: TrainedRun, split: Split, *, answers: bool) -> SplitEvaluation:
    """Scores of one model on a split, with those of generated answers where it gives any and they are wanted."""
    task = trained.task
    if task.needs_reference:
        pairs = evaluate_split(trained, split)
        margins = np.array([float(row["margin"]) for row in pairs.predictions])
        right = (margins > 0).astype(np.float64)
        measures = {
            "reward_accuracy": ratio_metric(right, lower=False),
            "reward_margin": ratio_metric(margins, lower=False),
        }
        return SplitEvaluation(pairs.scores, measures, pairs.tables, pairs.predictions)
    if task.head == "causal":
        return evaluate_mixture([trained], [1.0], split, rows_to_answer(trained, split) if answers else None)
    said, kind = model_outputs(trained, split), OutputKind(task, [task])
    logits = kind.logits(kind.spoken([said])[0])
    return evaluate_outputs(kind, logits, said, split.rows)


def make_soup(places: Sequence[MemberSource], *, greedy: bool) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Average the weights of several models of one base (Wortsman et al. 2022).

    Args:
        places: Where the models lie.
        greedy: Whether a model is left out where it lowers the validation score of the average.

    Returns:
        The result, the averaged model, and the splits.
    """
    members, sources = load_members(places)
    members = [merge_adapter_into_base(member) for member in members]
    check_same_scale(members)
    names, pot = [place.name for place in places], members[0]
    states = [cpu_state_dict(member) for member in members]
    valid = sources.splits["validation"]
    monitor = resolve_monitor(pot.settings, pot.task)[0]

    def tried(chosen: Sequence[int], split: Split, *, answers: bool = False) -> SplitEvaluation:
        pot.model.load_state_dict(average_weights([states[k] for k in chosen]))
        return evaluate_soup(pot, split, answers=answers)

    alone = [tried([k], valid) for k in range(len(members))]
    name = primary_metric(monitor, alone[0].measures)
    lower = alone[0].measures[name].lower
    values = [found.measures[name].value for found in alone]
    best, sign = index_of_best(values, lower=lower), -1 if lower else 1
    chosen = list(range(len(members)))
    if greedy:
        chosen, _ = greedy_soup_selection(
            [sign * v for v in values], lambda some: sign * tried(some, valid).measures[name].value
        )
    single = tried([best], sources.splits["test"], answers=True)
    validation = tried(chosen, valid)
    test = tried(chosen, sources.splits["test"], answers=True)
    gains = {score: paired_gain(single.measures[score], test.measures[score]) for score in single.measures}
    facts = {"primary": name, "validation_of_singles": dict(zip(names, values, strict=True))}
    weights = [1 / len(chosen)] * len(chosen)
    result = EnsembleResult(pot.task, [names[k] for k in chosen], weights, names[best], validation, test, gains, facts)
    return result, pot, sources


def check_same_scale(members: Sequence[TrainedRun]) -> None:
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
