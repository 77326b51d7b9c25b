"""Use an ensemble of predictions: load its members from its folder, answer new records, evaluate on a split.

Shape letters: N rows, C classes or targets.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunelab.config.schema import RunConfig
from tunelab.config.stored_files import read_stored_text, shape_faults_explained
from tunelab.data.data_sources import Split, encode_split
from tunelab.data.examples import Example
from tunelab.ensemble.combination import StackingModel
from tunelab.ensemble.ensemble_folder import ENSEMBLE_FILE
from tunelab.ensemble.ensemble_members import MemberSource
from tunelab.ensemble.label_ensemble import CombinationRule, OutputKind, evaluate_outputs, make_rule
from tunelab.ensemble.model_mixture import MixtureModel
from tunelab.ensemble.text_ensemble import (
    VoteSampling,
    collect_votes,
    elect_answer,
    evaluate_mixture,
    rows_to_answer,
    score_answers,
)
from tunelab.errors import ConfigError
from tunelab.generation.decode import use_sampling
from tunelab.generation.prediction import InputRecords, Prediction, batch_by_length, encode_prompts, predict_window
from tunelab.language.translation import translate
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.runs.run_dir import RunDirectory
from tunelab.runs.stored_json import read_stored_json
from tunelab.tasks.base import Task
from tunelab.tasks.metrics.own_metrics import attach_metrics
from tunelab.tasks.sequence import SequenceTask
from tunelab.training.components import build_task
from tunelab.training.evaluate import EvalResult, ModelOutputs, OutputCollector, evaluate
from tunelab.training.evaluate_run import model_outputs
from tunelab.training.load_run import TrainedRun, find_run, read_run_config, restore_task, weights_hash


@dataclass
class LoadedEnsemble:
    """Several runs that predict as one.

    Attributes:
        task: Of labels and numbers: in the scale that the members were combined in.
        members: Loaded, with the weights that were combined.
        weights: Of the members; None where they vote or are stacked.
        stack: The small model on top, where there is one.
        sampling: How members that generate answers vote.
        digest: A hash of what was fitted.
    """

    folder: RunDirectory
    settings: RunConfig
    task: Task
    members: list[TrainedRun]
    weights: list[float] | None
    stack: StackingModel | None
    sampling: VoteSampling
    digest: str

    @property
    def note(self) -> str | None:
        """A note for the user on how members were loaded; None without one."""
        return "\n".join(member.note for member in self.members if member.note) or None

    def identity(self) -> str:
        """A text that differs between any two ensembles."""
        return " ".join([self.digest, *(member.identity() for member in self.members)])


def load_ensemble(path: str | Path) -> LoadedEnsemble | None:
    """The ensemble of predictions in a folder; None where it holds one model, such as a run or a soup.

    Raises:
        ConfigError: If there is no run, or a member is gone or has other weights than when it was combined.
    """
    folder = find_run(path)
    if not (folder.root / ENSEMBLE_FILE).is_file() or (folder.export / "config.json").is_file():
        return None
    file = folder.root / ENSEMBLE_FILE
    advice = translate("combine the runs anew with tunelab ensemble")
    facts = read_stored_json(file, advice, required=("members",))
    with shape_faults_explained(file, advice):
        members = load_ensemble_members(folder.root, facts["members"])
        weights = [entry["weight"] for entry in facts["members"]]
        top = facts.get("stack")
        stack = None if top is None else StackingModel(np.array(top["weights"]), np.array(top["bias"]), top["strength"])
        sampling = VoteSampling(**facts.get("sampling", {}))
        numbers = None if None in weights else [float(weight) for weight in weights]
    settings = read_run_config(folder)
    task = build_task(settings)
    restore_task(task, read_stored_json(folder.task_state), folder.task_state)
    digest = hashlib.sha256(read_stored_text(file).encode()).hexdigest()
    return LoadedEnsemble(folder, settings, task, members, numbers, stack, sampling, digest)


def load_ensemble_members(root: Path, entries: list[dict[str, Any]]) -> list[TrainedRun]:
    """The members, loaded.

    Raises:
        ConfigError: Naming every one that is gone or has changed.
    """
    members, faults = list[MemberSource](), list[str]()
    for entry in entries:
        homes = [Path(entry["folder"]), root / entry["beside"]]
        home = next((one for one in homes if RunDirectory(one).exists()), None)
        if home is None:
            faults.append(
                translate(
                    "its member {run} is gone: there is no run at {home}, nor at {other}",
                    run=entry["run"],
                    home=homes[0],
                    other=homes[1],
                )
            )
            continue
        run = RunDirectory(home)
        member = MemberSource(run, None if entry["checkpoint"] is None else run.checkpoints / entry["checkpoint"])
        weights = member.checkpoint or run.best
        known = entry["weights_sha256"]
        if known is not None and weights.is_file() and weights_hash(weights) != known:
            faults.append(
                translate("its member {run} has learned on since; combine anew with tunelab ensemble", run=entry["run"])
            )
        members.append(member)
    if faults:
        raise ConfigError.listing(faults)
    return [member.load() for member in members]


def answer_records(ensemble: LoadedEnsemble, records: InputRecords, batch_tokens: int) -> list[Prediction]:
    """The answers to a few records: `prediction` and what belongs to it, or None and an `error`.

    Args:
        ensemble: The models.
        records: Their inputs; labels and answers in them are not looked at.
        batch_tokens: Most tokens of one forward pass of one member, pads counted.
    """
    if isinstance(ensemble.task, SequenceTask):
        return predict_labels(ensemble, ensemble.task, records, batch_tokens)
    if ensemble.weights is None:
        return vote_on_records(ensemble, records, batch_tokens)
    both = MixtureModel([member.model for member in ensemble.members], ensemble.weights)
    return predict_window(ensemble.members[0], records, batch_tokens, both)


def predict_labels(
    ensemble: LoadedEnsemble, task: SequenceTask, records: InputRecords, batch_tokens: int
) -> list[Prediction]:
    """Labels with their probabilities, or numbers.  Every member reads a text with its own tokenizer."""
    encoded = [encode_prompts(member, records) for member in ensemble.members]
    predictions: list[Prediction] = [
        next(filter(None, faults), {}) for faults in zip(*(faults for _, faults in encoded), strict=True)
    ]
    usable = [index for index, fault in enumerate(predictions) if not fault]
    if not usable:
        return predictions
    outputs = [
        question_outputs(member, [example for example in examples if not predictions[example.row]], batch_tokens)
        for member, (examples, _) in zip(ensemble.members, encoded, strict=True)
    ]
    kind, rule = ensemble_rule(ensemble)
    logits = torch.from_numpy(rule.combine(kind.to_predictions(outputs)))
    for index, answer in zip(usable, task.decode_logits(logits), strict=True):
        predictions[index] = answer
    return predictions


def ensemble_rule(ensemble: LoadedEnsemble) -> tuple[OutputKind, CombinationRule]:
    """The kind of outputs that the members have, and the rule that combines them."""
    kind = OutputKind(ensemble.task, [member.task for member in ensemble.members])
    return kind, make_rule(kind, ensemble.weights, ensemble.stack)


def question_outputs(trained: TrainedRun, questions: Sequence[Example], batch_tokens: int) -> ModelOutputs:
    """The outputs of one member for questions, in the order of their rows."""
    task, model, collector = trained.task, trained.model, OutputCollector()
    batches = batch_by_length(questions, batch_tokens)
    with trained.inference():
        micro_batches = (micro_to_device(task.collate(batch), model.device) for batch in batches)
        evaluate(micro_batches, partial(task.logits, model), collector)
    return collector.outputs()


def vote_on_records(ensemble: LoadedEnsemble, records: InputRecords, batch_tokens: int) -> list[Prediction]:
    """The answer that most members, or most of their draws, agree on."""
    sampling, votes = ensemble.sampling, list[list[Prediction]]()
    for member in ensemble.members:
        for number in range(max(1, sampling.count)):
            with use_sampling(sampling.temperature, sampling.seed + number) if sampling.count else nullcontext():
                votes.append(predict_window(member, records, batch_tokens))
    return [
        next((answer for answer in answers if "error" in answer), {}) or elect_answer(answers, sampling.pattern)
        for answers in zip(*votes, strict=True)
    ]


def evaluate_ensemble(ensemble: LoadedEnsemble, split: Split) -> EvalResult:
    """Scores of an ensemble on any rows, as `tunelab ensemble` gave them on test.

    Raises:
        DataError: Naming every record that cannot be used.
        ConfigError: If a metric of the runs' own cannot be had.
    """
    for task in (ensemble.task, ensemble.members[0].task):
        attach_metrics(task, ensemble.settings.metrics)
    _, counts = encode_split(split, ensemble.members[0].task)
    result = combined_evaluation(ensemble, split)
    scores = {name: float(value) for name, value in result.scores.items()}
    return replace(result, scores=scores, counts=counts)


def combined_evaluation(ensemble: LoadedEnsemble, split: Split) -> EvalResult:
    """The combined outputs of the members on a split, scored."""
    if isinstance(ensemble.task, SequenceTask):
        outputs = [model_outputs(member, split) for member in ensemble.members]
        kind, rule = ensemble_rule(ensemble)
        return evaluate_outputs(kind, rule.combine(kind.to_predictions(outputs)), outputs[0], split.rows)
    first, sampling = ensemble.members[0], ensemble.sampling
    rows = rows_to_answer(first, split)
    if ensemble.weights is not None:
        return evaluate_mixture(ensemble.members, ensemble.weights, split, rows)
    votes = collect_votes(ensemble.members, split, rows, sampling)
    elected = [elect_answer(answers, sampling.pattern) for answers in zip(*votes, strict=True)]
    return score_answers(first, elected, sampling.pattern)
