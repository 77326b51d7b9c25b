"""What decides the next trial of a study, by the name of its sampler."""

from collections.abc import Sequence

import optuna

from tunelab.search.engine import Proposer
from tunelab.search.folder import StudyFolder
from tunelab.search.plan import Plan
from tunelab.search.population import Population
from tunelab.search.proposals import Proposals
from tunelab.search.request import Request
from tunelab.search.samplers import make_samplers
from tunelab.search.space import Params
from tunelab.search.stages import stages_of


def proposer(
    study: optuna.Study,
    folder: StudyFolder,
    plan: Plan,
    request: Request,
    owed: Sequence[tuple[Params, str]],
    seed: int,
) -> Proposer:
    """The proposer that a plan asks for.

    Args:
        study: What was tried; its sampler is set.
        folder: The study's files.
        plan: Names it.
        request: What varies.
        owed: Configurations to try before any other.
        seed: Of this engine.
    """
    if plan.sampler == "pbt":
        return Population(study, folder, request.space, stages_of(plan), owed, plan.seed)
    samplers = make_samplers(plan.sampler, request.space, seed=seed, trials=plan.trials, options=plan.sampler_options)
    study.sampler = samplers.direct
    return Proposals(study, request.space, samplers, owed, plan.sampler == "grid", seed)
