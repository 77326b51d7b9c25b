"""Ensembles of language models: averaged next-token distributions, or a vote over whole answers.

Shape letters: N supervised positions, V vocabulary.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tunelab.analysis.row_scores import RowScore, answer_scores, mean_score, ratio_score
from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.data.data_sources import DataSplits, Split
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.ensemble.combination import forward_selection, mixture_weights
from tunelab.ensemble.ensemble_members import MemberSource, load_members
from tunelab.ensemble.ensemble_scores import EnsembleResult, index_of_best, paired_gains, primary_score
from tunelab.ensemble.model_mixture import MixtureModel, mix_log_probs
from tunelab.errors import ConfigError
from tunelab.generation.decode import use_sampling
from tunelab.language.translation import translate
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.token_metrics import TokenScores
from tunelab.training.evaluate import EvalResult, evaluate, summarize_predictions
from tunelab.training.evaluate_run import components_with_test_split, encode_examples
from tunelab.training.generation_eval import generated_test_rows
from tunelab.training.load_run import TrainedRun
from tunelab.training.trainer import resolve_monitor

FloatArray = NDArray[np.float64]
Prediction = dict[str, Any]


@dataclass(frozen=True)
class VoteSampling:
    """Number of answers and decoding of each model in a vote.

    Attributes:
        count: Answers of each member; 0 takes its one greedy answer.
        temperature: Above 0; higher makes answers more different.
        seed: Of the draws.
        pattern: The part of an answer that is voted on, as a regular expression; None takes all of it.
    """

    count: int = 0
    temperature: float = 0.7
    seed: int = 0
    pattern: str | None = None


def build_mixture_ensemble(
    members: Sequence[MemberSource], method: str, select: int | None
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Average the next-token distributions of several models.

    Args:
        members: Where the models lie.
        method: soft for equal weights, weighted for those under which validation is likeliest.
        select: Members at most, chosen among all for what they add to each other; None takes all.
    """
    models, splits = load_members(members)
    names = [member.name for member in members]
    examples = [encode_examples(model, splits.splits["validation"])[0] for model in models]
    check_vocabulary(list(zip(names, examples, strict=True)))
    likelihoods = np.stack([token_likelihoods(*pair) for pair in zip(models, examples, strict=True)], axis=1)  # (N, K)

    def loss(chosen: Sequence[int]) -> float:
        return -float(np.log(np.maximum(likelihoods[:, list(chosen)].mean(axis=1), 1e-300)).mean())

    losses = [loss([k]) for k in range(len(models))]
    best = index_of_best(losses, lower_is_better=True)
    chosen = list(range(len(models))) if select is None else forward_selection(losses, loss, select)
    equal = [1 / len(chosen)] * len(chosen)
    weights = equal if method == "soft" else mixture_weights(likelihoods[:, chosen]).tolist()
    mixed, test_split = [models[k] for k in chosen], splits.splits["test"]
    validation = evaluate_mixture(mixed, weights, splits.splits["validation"])
    rows = rows_to_answer(models[0], test_split)
    test = evaluate_mixture(mixed, weights, test_split, rows)
    single = evaluate_mixture([models[best]], [1.0], test_split, rows)
    gains = paired_gains(single.row_scores, test.row_scores)
    facts = {"primary": "loss", "validation_of_singles": dict(zip(names, losses, strict=True))}
    chosen_names = [names[k] for k in chosen]
    result = EnsembleResult(models[0].task, chosen_names, weights, names[best], validation, test, gains, facts)
    return result, models[0], splits


def build_vote_ensemble(
    members: Sequence[MemberSource], sampling: VoteSampling
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """A vote over whole answers: of several models, or of one that answers several times (Wang et al. 2023).

    Raises:
        ConfigError: If there is but one answer to vote on.
    """
    if len(members) * max(1, sampling.count) < 2:
        raise ConfigError(
            translate("one model with one answer leaves nothing to vote on; name more runs, or give --samples 8")
        )
    models, splits = load_members(members)
    if not all(isinstance(model.task, Instruction) for model in models):
        raise ConfigError(translate("only answers can be voted on, and these runs give none"))
    names = [member.name for member in members]
    values = [float((member.folder.read_manifest().get("best") or {}).get("value", np.nan)) for member in members]
    first, split = models[0], splits.splits["test"]
    monitor, mode = resolve_monitor(first.settings, first.task)
    best = index_of_best(values, lower_is_better=mode == "min")
    rows = rows_to_answer(first, split)
    greedy = [generate_answers(model, model.model, split, rows) for model in models]
    votes = collect_votes(models, split, rows, sampling) if sampling.count else greedy
    elected = [elect_answer([answers[at] for answers in votes], sampling.pattern) for at in range(len(rows))]
    test, single = (score_answers(first, answers, sampling.pattern) for answers in (elected, greedy[best]))
    if not test.row_scores:
        raise ConfigError(translate("no test row asks anything, so there is no answer to vote on"))
    facts: dict[str, Any] = {
        "primary": "answer_match" if sampling.pattern else primary_score(monitor, test.row_scores),
        "validation_of_singles": dict(zip(names, values, strict=True)),
        "votes": len(votes),
        "agreement": float(np.mean([row["agreement"] for row in elected if "agreement" in row])),
        "sampling": vars(sampling),
    }
    gains = paired_gains(single.row_scores, test.row_scores)
    return EnsembleResult(first.task, names, None, names[best], EvalResult({}), test, gains, facts), first, splits


def collect_votes(
    models: Sequence[TrainedRun], split: Split, rows: Sequence[int], sampling: VoteSampling
) -> list[list[Prediction]]:
    """Every answer that has a vote: a list over the rows for each member, or for each of its draws."""
    if not sampling.count:
        return [generate_answers(model, model.model, split, rows) for model in models]
    votes = []
    for model in models:
        for number in range(sampling.count):
            with use_sampling(sampling.temperature, sampling.seed + number):
                votes.append(generate_answers(model, model.model, split, rows))
    return votes


def elect_answer(answers: Sequence[Prediction], pattern: str | None) -> Prediction:
    """The answer that most agree on; of equally many the first one."""
    if any("prediction" not in answer for answer in answers):
        return answers[0]
    meanings = [comparable_answer(str(answer["prediction"]), pattern) for answer in answers]
    votes = Counter(meaning for meaning in meanings if meaning is not None)
    if not votes:  # the pattern is in none of them
        return {**answers[0], "agreement": 0.0}
    winner, count = votes.most_common(1)[0]
    return {**answers[meanings.index(winner)], "agreement": count / len(answers)}


def comparable_answer(text: str, pattern: str | None) -> str | None:
    """The part of an answer that is compared: all but runs of space, or the last match of a pattern; None without."""
    if pattern is None:
        return " ".join(text.split())
    matches = list(re.finditer(pattern, text))
    if not matches:
        return None
    last = matches[-1]
    return " ".join((last.group(1) if last.re.groups else last.group(0)).split())


def score_answers(trained: TrainedRun, answers: list[Prediction], pattern: str | None) -> EvalResult:
    """The scores of answers, with `answer_match` where a pattern says which part of them counts."""
    result = EvalResult({})
    add_answers(trained, result, answers)
    if pattern:
        match = answer_match_score(answers, pattern)
        result.row_scores = {"answer_match": match, **result.row_scores}
        result.scores["answer_match"] = match.value
    return result


def answer_match_score(answers: Sequence[Prediction], pattern: str) -> RowScore:
    """Share of rows whose answer means what the reference means."""
    pairs = [
        (comparable_answer(str(row["prediction"]), pattern), comparable_answer(str(row["reference"]), pattern))
        for row in answers
        if "prediction" in row
    ]
    return mean_score([meaning is not None and meaning == reference for meaning, reference in pairs])


def add_answers(trained: TrainedRun, result: EvalResult, answers: list[Prediction]) -> None:
    """Add generated answers and their scores to a result."""
    scores, result.tables = summarize_predictions(trained.task, answers)
    result.scores |= scores
    result.row_scores |= answer_scores(answers)
    result.predictions = answers


def rows_to_answer(trained: TrainedRun, split: Split) -> list[int]:
    """The test rows that are answered, as the settings of a run say; the same for all that are compared."""
    examples, _ = encode_examples(trained, split)
    chosen = generated_test_rows(components_with_test_split(trained, split, examples))
    return [example.row for example in examples if example.predicts and (chosen is None or example.row in chosen)]


def generate_answers(trained: TrainedRun, model: Any, split: Split, rows: Sequence[int]) -> list[Prediction]:
    """Answers of a model, or of several as one, with their scores; lines of predictions.jsonl."""
    with trained.inference():
        return trained.task.generate_predictions(model, rows, [split.rows[row] for row in rows])


def check_vocabulary(members: Sequence[tuple[str, Sequence[Example]]]) -> None:
    """Refuse models that read the same rows as other tokens: their distributions are over different things.

    Raises:
        ConfigError: If one does.
    """
    (first, expected), *others = members
    for name, examples in others:
        if [(e.ids, e.target) for e in examples] != [(e.ids, e.target) for e in expected]:
            raise ConfigError(
                translate(
                    "{name} reads the rows as other tokens than {first}: distributions can be averaged "
                    "over one tokenizer and one chat template only; --method hard votes on whole answers",
                    name=name,
                    first=first,
                )
            )


class TokenOutcomes:
    """Collects the log-probability of each supervised token, and whether it was the likeliest, by sequence.

    Args:
        examples: The sequences, by their places; a record may have several.
        records: The record of each.
    """

    def __init__(self, examples: dict[int, Example], records: Sequence[int]) -> None:
        self.examples, self.records = examples, records
        self.log_probs, self.hits = dict[int, Tensor](), dict[int, Tensor]()

    def update(self, logits: Tensor, micro: MicroBatch) -> None:
        """Take in log-probabilities (N, V)."""
        targets = micro.targets[micro.targets != IGNORE]
        rows = micro.row_indices.tolist()
        counts = [int(self.examples[row].loss_weight) for row in rows]
        log_probs = logits.gather(1, targets[:, None])[:, 0].double().cpu().split(counts)
        hits = (logits.argmax(-1) == targets).double().cpu().split(counts)
        self.log_probs |= dict(zip(rows, log_probs, strict=True))
        self.hits |= dict(zip(rows, hits, strict=True))

    def row_scores(self) -> dict[str, RowScore]:
        """Loss and accuracy by token, over any records."""
        places: dict[int, list[int]] = {}
        for place in sorted(self.log_probs):
            places.setdefault(self.records[place], []).append(place)
        groups = [places[record] for record in sorted(places)]
        losses = np.array([-sum(float(self.log_probs[place].sum()) for place in group) for group in groups])
        hits = np.array([sum(float(self.hits[place].sum()) for place in group) for group in groups])
        tokens = np.array([sum(self.examples[place].loss_weight for place in group) for group in groups], np.float64)
        return {
            "loss": ratio_score(losses, tokens, lower_is_better=True),
            "token_accuracy": ratio_score(hits, tokens),
        }


def example_micro_batches(trained: TrainedRun, examples: Sequence[Example]) -> Iterator[MicroBatch]:
    """Micro-batches of padded size, longest first, as a model lays them out, on its device."""
    lengths = [len(example.ids) for example in examples]
    order = longest_first(range(len(examples)), lengths)
    for chunk in split_micro_batches(order, lengths, micro_tokens=trained.settings.micro_tokens, packed=False):
        yield micro_to_device(trained.task.collate([examples[index] for index in chunk]), trained.model.device)


def token_log_probs(
    members: Sequence[TrainedRun], weights: Sequence[float], examples: dict[int, Example], micro: MicroBatch
) -> Tensor:
    """Log-probabilities (N, V) of a mixture for a micro-batch of its first member.

    Other members may lay out rows otherwise, so each collates the examples by itself.
    """
    first, chunk, log_probs = members[0], [examples[row] for row in micro.row_indices.tolist()], list[Tensor]()
    for member in members:
        own = micro if member is first else micro_to_device(member.task.collate(chunk), member.model.device)
        log_probs.append(member.task.logits(member.model, own).float().log_softmax(-1))
    return mix_log_probs(log_probs, weights) if len(members) > 1 else log_probs[0]


def token_likelihoods(trained: TrainedRun, examples: Sequence[Example]) -> FloatArray:
    """The probability that a model gives to each supervised token, row by row in the order of the examples."""
    by_place = number_sequences(examples)
    outcomes = TokenOutcomes(by_place, [example.row for example in examples])
    with trained.inference():
        log_probs = partial(token_log_probs, [trained], [1.0], by_place)
        evaluate(example_micro_batches(trained, list(by_place.values())), log_probs, outcomes)
    return np.concatenate([outcomes.log_probs[place].exp().numpy() for place in by_place])


def number_sequences(examples: Sequence[Example]) -> dict[int, Example]:
    """The examples by their places, which stand in them in place of their records."""
    return {place: replace(example, row=place) for place, example in enumerate(examples)}


def evaluate_mixture(
    members: Sequence[TrainedRun], weights: Sequence[float], split: Split, answer: Sequence[int] | None = None
) -> EvalResult:
    """Scores of a mixture on a split; of one model with weight 1, its own.

    Args:
        members: Causal models that share tokenizer and template.
        weights: Of each, together 1.
        split: The rows.
        answer: Rows that are answered by generation and scored too; None answers nothing.
    """
    first = members[0]
    examples, _ = encode_examples(first, split)
    by_place = number_sequences(examples)
    outcomes = TokenOutcomes(by_place, [example.row for example in examples])
    scores = TokenScores().to(first.model.device)
    with first.inference():
        log_probs = partial(token_log_probs, members, weights, by_place)
        evaluate(example_micro_batches(first, list(by_place.values())), log_probs, scores, outcomes)
    result = EvalResult(scores.compute(), row_scores=outcomes.row_scores())
    if answer is not None:
        model: Any = first.model
        if len(members) > 1:
            model = MixtureModel([member.model for member in members], weights)
        add_answers(first, result, generate_answers(first, model, split, answer))
    return result
