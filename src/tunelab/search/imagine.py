"""What a learning sampler is shown: failed and running trials too, as if they had ended badly.

Optuna's samplers leave out trials without a value.  A Gaussian process then proposes a diverging learning rate again
and again, since it never hears of it, and two engines propose the same next trial.  Here both count as the worst value
seen so far: constant imputation for failures, the constant liar of Ginsbourger et al. (2010) for running trials.
"""

from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.search.space import Params, Space


def imagined(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler, space: Space
) -> Params:
    """The configuration that a sampler proposes after these trials.

    Args:
        trials: Every trial of the study.
        directions: Of the objectives.
        sampler: Learns from them.
        space: What may be proposed.
    """
    blank = optuna.create_study(directions=list(directions), sampler=sampler)
    blank.add_trials(shown(trials, directions, sampler))
    return space.suggest(blank.ask())


def shown(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler
) -> list[FrozenTrial]:
    """The trials as a sampler should see them; those without a value get the worst one there is."""
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not whole:
        return []
    worst = [
        max(values) if way is StudyDirection.MINIMIZE else min(values)
        for way, values in zip(directions, zip(*(trial.values for trial in whole), strict=True), strict=True)
    ]
    found = []
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            found.append(trial)
        elif trial.state is TrialState.PRUNED and trial.intermediate_values and not isinstance(sampler, TPESampler):
            last = trial.intermediate_values[max(trial.intermediate_values)]
            found.append(create_trial(params=trial.params, distributions=trial.distributions, value=last))
        elif trial.state is TrialState.PRUNED:
            found.append(trial)
        elif trial.params and trial.state in (TrialState.FAIL, TrialState.RUNNING):
            found.append(create_trial(params=trial.params, distributions=trial.distributions, values=worst))
    return found
