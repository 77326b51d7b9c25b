"""Model soups: the weights of several models averaged into one, adapters merged first."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunelab.analysis.row_scores import mean_score
from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.ensemble.combination import greedy_soup_selection
from tunelab.ensemble.ensemble_members import MemberSource, load_members
from tunelab.ensemble.ensemble_scores import EnsembleResult, index_of_best, paired_gains, primary_score
from tunelab.ensemble.label_ensemble import OutputKind, evaluate_outputs
from tunelab.ensemble.text_ensemble import evaluate_mixture, rows_to_answer
from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.models.adapter_export import merge_adapter_weights
from tunelab.models.adapters import AdaptedModel
from tunelab.models.device_placement import TrainingPlacement, place_model
from tunelab.training.components import RunComponents, choose_packing
from tunelab.training.evaluate import EvalResult
from tunelab.training.evaluate_run import evaluate_split, model_outputs
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
                translate(
                    "the weights have different shapes, so they cannot be averaged; a soup needs one "
                    "architecture, and one base model, or --method soft, which combines the outputs of "
                    "models"
                )
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
    components = RunComponents(settings, trained.task, sources, trained.tokenizer, {}, {}, adapter=trained.adapter)
    merged = merge_adapter_weights(unquantized_adapter(components), trained.tokenizer)
    if merged.prompt_prefix:
        raise ConfigError(
            translate(
                "{root} has a soft prompt, which cannot be averaged; take --method soft", root=trained.folder.root
            )
        )
    merged_settings = replace(settings, adapter=replace(settings.adapter, kind="full"))
    model: Any = merged.model
    choose_packing(
        TrainingPlacement.from_config(merged_settings.trainer),
        trained.task,
        model,
        merged_settings.data,
        merged_settings.model.attention,
    )
    place_model(model.eval(), trained.placement.device)
    return replace(trained, settings=merged_settings, adapter=AdaptedModel(model, "full"))


def cpu_state_dict(trained: TrainedRun) -> StateDict:
    """A copy of the weights on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in trained.model.state_dict().items()}


def evaluate_soup(trained: TrainedRun, split: Split, *, answers: bool) -> EvalResult:
    """Scores of one model on a split, those of generated answers only with `answers`."""
    task = trained.task
    if task.needs_reference:
        result = evaluate_split(trained, split)
        margins = np.array([float(row["margin"]) for row in result.predictions])
        result.row_scores = {"reward_accuracy": mean_score(margins > 0), "reward_margin": mean_score(margins)}
        return result
    if task.head == "causal":
        return evaluate_mixture([trained], [1.0], split, rows_to_answer(trained, split) if answers else None)
    outputs, kind = model_outputs(trained, split), OutputKind(task, [task])
    logits = kind.to_logits(kind.to_predictions([outputs])[0])
    return evaluate_outputs(kind, logits, outputs, split.rows)


def make_soup(members: Sequence[MemberSource], *, greedy: bool) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Average the weights of several models of one base (Wortsman et al. 2022).

    Args:
        members: Where the models lie.
        greedy: Whether a model is left out where it lowers the validation score of the average.

    Returns:
        The result, the averaged model, and the splits.
    """
    loaded, splits = load_members(members)
    models = [merge_adapter_into_base(model) for model in loaded]
    check_same_scale(models)
    names, soup = [member.name for member in members], models[0]
    states = [cpu_state_dict(model) for model in models]
    validation_split, test_split = splits.splits["validation"], splits.splits["test"]
    monitor = resolve_monitor(soup.settings, soup.task)[0]

    def average_and_evaluate(chosen: Sequence[int], split: Split, *, answers: bool = False) -> EvalResult:
        soup.model.load_state_dict(average_weights([states[k] for k in chosen]))
        return evaluate_soup(soup, split, answers=answers)

    singles = [average_and_evaluate([k], validation_split) for k in range(len(models))]
    primary = primary_score(monitor, singles[0].row_scores)
    lower_is_better = singles[0].row_scores[primary].lower_is_better
    values = [single.row_scores[primary].value for single in singles]
    best, sign = index_of_best(values, lower_is_better=lower_is_better), -1 if lower_is_better else 1
    chosen = list(range(len(models)))
    if greedy:
        chosen, _ = greedy_soup_selection(
            [sign * value for value in values],
            lambda some: sign * average_and_evaluate(some, validation_split).row_scores[primary].value,
        )
    single = average_and_evaluate([best], test_split, answers=True)
    validation = average_and_evaluate(chosen, validation_split)
    test = average_and_evaluate(chosen, test_split, answers=True)
    gains = paired_gains(single.row_scores, test.row_scores)
    facts = {"primary": primary, "validation_of_singles": dict(zip(names, values, strict=True))}
    weights, chosen_names = [1 / len(chosen)] * len(chosen), [names[k] for k in chosen]
    result = EnsembleResult(soup.task, chosen_names, weights, names[best], validation, test, gains, facts)
    return result, soup, splits


def check_same_scale(models: Sequence[TrainedRun]) -> None:
    """Refuse models of numbers that standardise them differently: their heads give different units.

    Raises:
        ConfigError: If they do.
    """
    scales = {(tuple(getattr(m.task, "mean", ())), tuple(getattr(m.task, "std", ()))) for m in models}
    if len(scales) > 1:
        raise ConfigError(
            translate(
                "the runs standardise their targets differently, so their weights cannot be "
                "averaged; train them on the same rows, or take --method soft"
            )
        )
