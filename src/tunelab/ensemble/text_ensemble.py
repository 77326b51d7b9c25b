"""Ensembles of language models: averaged next-token distributions, or a vote over whole answers.

Shape letters: N supervised positions, V vocabulary.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelab.data.batching import longest_first, split_micro_batches
from tunelab.data.data_sources import SPLITS, DataSplits, Split
from tunelab.data.examples import IGNORE, Example, MicroBatch
from tunelab.ensemble.combination import forward_selection, mixture_weights
from tunelab.ensemble.ensemble_members import (
    MemberSource,
    check_same_rows,
    check_same_task,
    encode_examples,
    read_run_splits,
)
from tunelab.ensemble.ensemble_scores import (
    EnsembleResult,
    SplitEvaluation,
    answer_metrics,
    index_of_best,
    paired_gain,
    primary_metric,
    ratio_metric,
)
from tunelab.ensemble.model_mixture import MixtureModel, mix_log_probs
from tunelab.errors import ConfigError
from tunelab.generation.decode import use_sampling
from tunelab.models.unpadded_attention import micro_to_device
from tunelab.tasks.instruction import Instruction
from tunelab.tasks.metrics.token_metrics import TokenScores
from tunelab.training.components import RunComponents
from tunelab.training.evaluate import generated_test_rows
from tunelab.training.load_run import TrainedRun
from tunelab.training.trainer import resolve_monitor


@dataclass(frozen=True)
class VoteSampling:
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


def load_members(places: Sequence[MemberSource]) -> tuple[list[TrainedRun], DataSplits]:
    """All members at once, and their splits.

    Raises:
        ConfigError, DataError: If they do not belong together.
    """
    members = [place.restore() for place in places]
    names = [place.name for place in places]
    check_same_task(members, names)
    sources = read_run_splits(members[0])
    for member, name in zip(members[1:], names[1:], strict=True):
        one, first = member.settings, members[0].settings
        if one.data != first.data or one.seed != first.seed:
            check_same_rows(sources, read_run_splits(member), (names[0], name))
    return members, sources


def build_mixture_ensemble(
    places: Sequence[MemberSource], method: str, select: int | None
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """Average the next-token distributions of several models.

    Args:
        places: Where the models lie.
        method: soft for equal weights, weighted for those under which validation is likeliest.
        select: Members at most, chosen among all for what they add to each other; None takes all.
    """
    members, sources = load_members(places)
    names = [place.name for place in places]
    examples = [encode_examples(member, sources.splits["validation"]) for member in members]
    check_vocabulary(list(zip(names, examples, strict=True)))
    likely = np.stack([token_likelihoods(m, e) for m, e in zip(members, examples, strict=True)], axis=1)  # (N, K)

    def loss(chosen: Sequence[int]) -> float:
        return -float(np.log(np.maximum(likely[:, list(chosen)].mean(axis=1), 1e-300)).mean())

    losses = [loss([k]) for k in range(len(members))]
    best = index_of_best(losses, lower=True)
    chosen = list(range(len(members))) if select is None else forward_selection(losses, loss, select)
    equal = [1 / len(chosen)] * len(chosen)
    weights = equal if method == "soft" else mixture_weights(likely[:, chosen]).tolist()
    taken = [members[k] for k in chosen]
    validation = evaluate_mixture(taken, weights, sources.splits["validation"])
    rows = rows_to_answer(members[0], sources.splits["test"])
    test = evaluate_mixture(taken, weights, sources.splits["test"], rows)
    single = evaluate_mixture([members[best]], [1.0], sources.splits["test"], rows)
    gains = {name: paired_gain(single.measures[name], test.measures[name]) for name in single.measures}
    facts = {"primary": "loss", "validation_of_singles": dict(zip(names, losses, strict=True))}
    result = EnsembleResult(
        members[0].task, [names[k] for k in chosen], weights, names[best], validation, test, gains, facts
    )
    return result, members[0], sources


def build_vote_ensemble(
    places: Sequence[MemberSource], sampling: VoteSampling
) -> tuple[EnsembleResult, TrainedRun, DataSplits]:
    """A vote over whole answers: of several models, or of one that is asked several times (Wang et al. 2023).

    Raises:
        ConfigError: If there is but one answer to vote on.
    """
    if len(places) * max(1, sampling.count) < 2:
        raise ConfigError("one model with one answer leaves nothing to vote on; name more runs, or give --samples 8")
    members, sources = load_members(places)
    if not all(isinstance(member.task, Instruction) for member in members):
        raise ConfigError("only answers can be voted on, and these runs give none")
    names = [place.name for place in places]
    values = [float((place.folder.read_manifest().get("best") or {}).get("value", np.nan)) for place in places]
    mode = resolve_monitor(members[0].settings, members[0].task)[1]
    best = index_of_best(values, lower=mode == "min")
    split = sources.splits["test"]
    rows = rows_to_answer(members[0], split)
    greedy = [generate_answers(member, member.model, split, rows) for member in members]
    heard = greedy if not sampling.count else collect_votes(members, split, rows, sampling)
    chosen = [elect_answer([said[at] for said in heard], sampling.pattern) for at in range(len(rows))]
    first = members[0]
    test, single = (score_answers(first, said, sampling.pattern) for said in (chosen, greedy[best]))
    if not test.measures:
        raise ConfigError("no test row asks anything, so there is no answer to vote on")
    gains = {name: paired_gain(single.measures[name], test.measures[name]) for name in single.measures}
    score = (
        "answer_match"
        if sampling.pattern
        else primary_metric(resolve_monitor(first.settings, first.task)[0], test.measures)
    )
    facts: dict[str, Any] = {
        "primary": score,
        "validation_of_singles": dict(zip(names, values, strict=True)),
        "votes": len(heard),
        "agreement": float(np.mean([row["agreement"] for row in chosen if "agreement" in row])),
        "sampling": vars(sampling),
    }
    return (
        EnsembleResult(first.task, names, None, names[best], SplitEvaluation({}, {}), test, gains, facts),
        first,
        sources,
    )


def collect_votes(
    members: Sequence[TrainedRun], split: Split, rows: Sequence[int], sampling: VoteSampling
) -> list[list[dict[str, Any]]]:
    """Every answer that has a vote: a list over the asked rows for each member, or for each of its draws."""
    if not sampling.count:
        return [generate_answers(member, member.model, split, rows) for member in members]
    found = []
    for member in members:
        for number in range(sampling.count):
            with use_sampling(sampling.temperature, sampling.seed + number):
                found.append(generate_answers(member, member.model, split, rows))
    return found


def score_answers(trained: TrainedRun, said: list[dict[str, Any]], pattern: str | None) -> SplitEvaluation:
    """The scores of answers, with `answer_match` where a pattern says what of them counts."""
    found = add_answer_scores(trained, {}, {}, said)
    if pattern:
        found.measures = {"answer_match": answer_match_metric(found, pattern), **found.measures}
        found.scores["answer_match"] = found.measures["answer_match"].value
    return found


def elect_answer(said: Sequence[dict[str, Any]], pattern: str | None) -> dict[str, Any]:
    """The answer that most agree on; of equally many the one heard first."""
    if any("prediction" not in row for row in said):
        return said[0]
    meant = [comparable_answer(str(row["prediction"]), pattern) for row in said]
    votes = Counter(one for one in meant if one is not None)
    if not votes:  # the pattern is in none of them
        return {**said[0], "agreement": 0.0}
    winner, count = votes.most_common(1)[0]
    return {**said[meant.index(winner)], "agreement": count / len(said)}


def comparable_answer(text: str, pattern: str | None) -> str | None:
    """What of an answer is compared: all but runs of space, or the last match of a pattern; None without one."""
    if pattern is None:
        return " ".join(text.split())
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    return " ".join((found[-1].group(1) if found[-1].re.groups else found[-1].group(0)).split())


def answer_match_metric(found: SplitEvaluation, pattern: str) -> Any:
    """Share of rows whose answer means what the reference means."""
    rows = [row for row in found.predictions if "prediction" in row]
    pairs = [
        (comparable_answer(str(row["prediction"]), pattern), comparable_answer(str(row["reference"]), pattern))
        for row in rows
    ]
    return ratio_metric(np.array([float(one is not None and one == other) for one, other in pairs]), lower=False)


FloatArray = NDArray[np.float64]


def example_chunks(trained: TrainedRun, examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Examples that one forward pass sees, longest first."""
    lengths = [len(example.ids) for example in examples]
    order = longest_first(range(len(examples)), lengths)
    for chunk in split_micro_batches(order, lengths, micro_tokens=trained.settings.micro_tokens, packed=False):
        yield [examples[place] for place in chunk]


def chunk_log_probs(trained: TrainedRun, chunk: Sequence[Example]) -> tuple[Tensor, MicroBatch]:
    """Log-probabilities (N, V) of a chunk in its order, and the micro-batch as this model lays it out."""
    micro = micro_to_device(trained.task.collate(chunk), trained.model.device)
    return trained.task.logits(trained.model, micro).float().log_softmax(-1), micro


def token_likelihoods(trained: TrainedRun, examples: Sequence[Example]) -> FloatArray:
    """The probability that a model gives to each supervised token, row by row in the order of the examples."""
    found: dict[int, FloatArray] = {}
    with trained.use():
        for chunk in example_chunks(trained, examples):
            said, micro = chunk_log_probs(trained, chunk)
            wanted = micro.targets[micro.targets != IGNORE]
            each = said.gather(1, wanted[:, None])[:, 0].double().exp().cpu()
            for example, part in zip(chunk, each.split([int(example.loss_weight) for example in chunk]), strict=True):
                found[example.row] = part.numpy()
    return np.concatenate([found[example.row] for example in examples])


def check_vocabulary(members: Sequence[tuple[str, Sequence[Example]]]) -> None:
    """Refuse models that read the same rows as other tokens: their distributions speak of different things.

    Raises:
        ConfigError: If one does.
    """
    (first, wanted), *others = members
    for name, examples in others:
        if [(e.ids, e.target) for e in examples] != [(e.ids, e.target) for e in wanted]:
            raise ConfigError(
                f"{name} reads the rows as other tokens than {first}: distributions can be averaged over one "
                "tokenizer and one chat template only; --method hard votes on whole answers"
            )


def evaluate_mixture(
    members: Sequence[TrainedRun], weights: Sequence[float], split: Split, answer: Sequence[int] | None = None
) -> SplitEvaluation:
    """Scores of a mixture on a split; of one model with weight 1, its own.

    Args:
        members: Causal models that share tokenizer and template.
        weights: Of each, together 1.
        split: The rows.
        answer: Rows that are answered by generation and scored too; None answers nothing.
    """
    first = members[0]
    examples = encode_examples(first, split)
    scores, losses = TokenScores(), dict[int, tuple[float, float, float]]()
    with first.use():
        for chunk in example_chunks(first, examples):
            said = [chunk_log_probs(member, chunk) for member in members]
            whole, micro = mix_log_probs([one for one, _ in said], weights), said[0][1]
            scores.update(whole.cpu(), micro_to_device(micro, torch.device("cpu")))
            wanted = micro.targets[micro.targets != IGNORE]
            counts = [int(example.loss_weight) for example in chunk]
            losing = (-whole.gather(1, wanted[:, None])[:, 0]).double().cpu().split(counts)
            right = (whole.argmax(-1) == wanted).double().cpu().split(counts)
            for example, lost, hit in zip(chunk, losing, right, strict=True):
                losses[example.row] = float(lost.sum()), float(hit.sum()), example.loss_weight
    flat = scores.compute()
    lost, hits, units = (np.array([losses[row][place] for row in sorted(losses)]) for place in range(3))
    measures = {"loss": ratio_metric(lost, units, lower=True), "token_accuracy": ratio_metric(hits, units, lower=False)}
    if answer is None:
        return SplitEvaluation(flat, measures)
    speaker: Any = first.model if len(members) == 1 else MixtureModel([member.model for member in members], weights)
    return add_answer_scores(first, flat, measures, generate_answers(first, speaker, split, answer))


def add_answer_scores(
    trained: TrainedRun, flat: dict[str, float], measures: dict[str, Any], predictions: list[dict[str, Any]]
) -> SplitEvaluation:
    """Scores with those of the generated answers."""
    flat = flat | {name: float(value) for name, value in trained.task.summary(predictions).items()}
    tables = trained.task.tables(predictions)
    return SplitEvaluation(flat, measures | answer_metrics(predictions), tables, predictions)


def rows_to_answer(trained: TrainedRun, split: Split) -> list[int]:
    """The test rows that are answered, as the settings of a run say; the same for all that are compared."""
    examples = encode_examples(trained, split)
    sources = DataSplits({name: Split() for name in SPLITS} | {"test": split}, {}, [])
    kept = {"test": examples}
    prepared = RunComponents(
        trained.settings, trained.task, sources, trained.tokenizer, kept, {}, adapter=trained.adapter
    )
    chosen = generated_test_rows(prepared)
    return [e.row for e in examples if chosen is None or e.row in chosen]


def generate_answers(trained: TrainedRun, speaker: Any, split: Split, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Answers of a model, or of several as one, judged; lines of predictions.jsonl."""
    with trained.use():
        return trained.task.generate_predictions(speaker, rows, [split.rows[row] for row in rows])
