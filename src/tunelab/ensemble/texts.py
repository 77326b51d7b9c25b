"""What language models say of a split, alone or as one: loss by token, and answers.

Shape letters: N supervised positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunelab.assemble import Prepared
from tunelab.data.batching import cut, longest_first
from tunelab.data.examples import IGNORE, Example, Micro
from tunelab.data.prepare import SPLITS, Sources, Split
from tunelab.ensemble.evaluated import Evaluated
from tunelab.ensemble.measures import answer_measures, ratio
from tunelab.ensemble.mixture import Mixture, mixed
from tunelab.ensemble.outputs import encoded
from tunelab.errors import ConfigError
from tunelab.models.document_attention import on_device
from tunelab.restore import Trained
from tunelab.scoring import test_rows
from tunelab.tasks.token_scores import TokenScores

Figures = NDArray[np.float64]


def chunks(trained: Trained, examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Examples that one forward pass sees, longest first."""
    lengths = [len(example.ids) for example in examples]
    order = longest_first(range(len(examples)), lengths)
    for chunk in cut(order, lengths, micro_tokens=trained.settings.micro_tokens, flat=False):
        yield [examples[place] for place in chunk]


def asked(trained: Trained, chunk: Sequence[Example]) -> tuple[Tensor, Micro]:
    """Log-probabilities (N, V) of a chunk in its order, and the micro-batch as this model lays it out."""
    micro = on_device(trained.task.collate(chunk), trained.model.device)
    return trained.task.logits(trained.model, micro).float().log_softmax(-1), micro


def token_likelihoods(trained: Trained, examples: Sequence[Example]) -> Figures:
    """The probability that a model gives to each supervised token, row by row in the order of the examples."""
    found: dict[int, Figures] = {}
    with trained.use():
        for chunk in chunks(trained, examples):
            said, micro = asked(trained, chunk)
            wanted = micro.targets[micro.targets != IGNORE]
            each = said.gather(1, wanted[:, None])[:, 0].double().exp().cpu()
            for example, part in zip(chunk, each.split([int(example.units) for example in chunk]), strict=True):
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


def evaluate(
    members: Sequence[Trained], weights: Sequence[float], split: Split, answer: Sequence[int] | None = None
) -> Evaluated:
    """Scores of a mixture on a split; of one model with weight 1, its own.

    Args:
        members: Causal models that share tokenizer and template.
        weights: Of each, together 1.
        split: The rows.
        answer: Rows that are answered by generation and scored too; None answers nothing.
    """
    first = members[0]
    examples = encoded(first, split)
    scores, losses = TokenScores(), dict[int, tuple[float, float, float]]()
    with first.use():
        for chunk in chunks(first, examples):
            said = [asked(member, chunk) for member in members]
            whole, micro = mixed([one for one, _ in said], weights), said[0][1]
            scores.update(whole.cpu(), on_device(micro, torch.device("cpu")))
            wanted = micro.targets[micro.targets != IGNORE]
            counts = [int(example.units) for example in chunk]
            losing = (-whole.gather(1, wanted[:, None])[:, 0]).double().cpu().split(counts)
            right = (whole.argmax(-1) == wanted).double().cpu().split(counts)
            for example, lost, hit in zip(chunk, losing, right, strict=True):
                losses[example.row] = float(lost.sum()), float(hit.sum()), example.units
    flat = scores.compute()
    lost, hits, units = (np.array([losses[row][place] for row in sorted(losses)]) for place in range(3))
    measures = {"loss": ratio(lost, units, lower=True), "token_accuracy": ratio(hits, units, lower=False)}
    if answer is None:
        return Evaluated(flat, measures)
    speaker: Any = first.model if len(members) == 1 else Mixture([member.model for member in members], weights)
    return with_answers(first, flat, measures, answered(first, speaker, split, answer))


def with_answers(
    trained: Trained, flat: dict[str, float], measures: dict[str, Any], predictions: list[dict[str, Any]]
) -> Evaluated:
    """Scores with those of the generated answers."""
    flat = flat | {name: float(value) for name, value in trained.task.summary(predictions).items()}
    tables = trained.task.tables(predictions)
    return Evaluated(flat, measures | answer_measures(predictions), tables, predictions)


def asked_of(trained: Trained, split: Split) -> list[int]:
    """The test rows that are answered, as the settings of a run say; the same for all that are compared."""
    examples = encoded(trained, split)
    sources = Sources({name: Split() for name in SPLITS} | {"test": split}, {}, [])
    kept = {"test": examples}
    prepared = Prepared(trained.settings, trained.task, sources, trained.tokenizer, kept, {}, adapter=trained.adapter)
    chosen = test_rows(prepared)
    return [e.row for e in examples if chosen is None or e.row in chosen]


def answered(trained: Trained, speaker: Any, split: Split, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Answers of a model, or of several as one, judged; lines of predictions.jsonl."""
    with trained.use():
        return trained.task.answered(speaker, rows, [split.rows[row] for row in rows])
