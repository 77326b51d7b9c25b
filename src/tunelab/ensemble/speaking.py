"""What an ensemble of predictions says of new records, by the rule that was fitted on validation.

Shape letters: N rows, C classes or targets.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from tunelab.data.examples import Example
from tunelab.data.prepare import Split, encode_split
from tunelab.ensemble.by_text import ballots, compared, elected
from tunelab.ensemble.evaluated import Evaluated
from tunelab.ensemble.in_use import Together
from tunelab.ensemble.labelled import Kind, evaluated
from tunelab.ensemble.mixture import Mixture
from tunelab.ensemble.outputs import Outputs, outputs
from tunelab.ensemble.rules import Rule, made
from tunelab.ensemble.texts import asked_of, evaluate
from tunelab.generate.answering import Answer, Records, batches, questions, window
from tunelab.generate.sample import sampled
from tunelab.judging import Judged
from tunelab.models.document_attention import on_device
from tunelab.restore import Trained
from tunelab.tasks.labelled import Labelled


def say(ensemble: Together, records: Records, batch_tokens: int) -> list[Answer]:
    """The answers to a few records: `prediction` and what belongs to it, or None and an `error`.

    Args:
        ensemble: Who is asked.
        records: What is asked; labels and answers in them are not looked at.
        batch_tokens: Most tokens of one forward pass of one member, pads counted.
    """
    if isinstance(ensemble.task, Labelled):
        return said_of_labels(ensemble, ensemble.task, records, batch_tokens)
    if ensemble.weights is None:
        return said_by_vote(ensemble, records, batch_tokens)
    both = Mixture([member.model for member in ensemble.members], ensemble.weights)
    return window(ensemble.members[0], records, batch_tokens, both)


def said_of_labels(ensemble: Together, task: Labelled, records: Records, batch_tokens: int) -> list[Answer]:
    """Labels with their probabilities, or numbers.  Every member reads a text with its own tokenizer."""
    each = [questions(member, records) for member in ensemble.members]
    found: list[Answer] = [
        next(filter(None, faults), {}) for faults in zip(*(faults for _, faults in each), strict=True)
    ]
    usable = [place for place, fault in enumerate(found) if not fault]
    if not usable:
        return found
    said = [
        outputs_of(member, [example for example in asked if not found[example.row]], batch_tokens)
        for member, (asked, _) in zip(ensemble.members, each, strict=True)
    ]
    kind, rule = rule_of(ensemble)
    logits = torch.from_numpy(rule.combine(kind.spoken(said)))
    for place, answer in zip(usable, task.spoken(logits), strict=True):
        found[place] = answer
    return found


def rule_of(ensemble: Together) -> tuple[Kind, Rule]:
    """How outputs of the members are read, and how they become those of the ensemble."""
    kind = Kind(ensemble.task, [member.task for member in ensemble.members])
    return kind, made(kind, ensemble.weights, ensemble.stack)


def outputs_of(trained: Trained, asked: Sequence[Example], batch_tokens: int) -> Outputs:
    """What one member says of questions, in the order of their rows."""
    logits, rows = list[torch.Tensor](), list[int]()
    with trained.use():
        for batch in batches(asked, batch_tokens):
            micro = on_device(trained.task.collate(batch), trained.model.device)
            logits.append(trained.task.logits(trained.model, micro).double().cpu())
            rows += [example.row for example in batch]
    place = torch.tensor(rows)
    order = place.argsort()
    return Outputs(torch.cat(logits)[order].numpy(), torch.empty(0), place[order])


def said_by_vote(ensemble: Together, records: Records, batch_tokens: int) -> list[Answer]:
    """The answer that most members, or most of their draws, agree on."""
    votes, heard = ensemble.sampling, list[list[Answer]]()
    for member in ensemble.members:
        for number in range(max(1, votes.count)):
            with sampled(votes.temperature, votes.seed + number) if votes.count else nullcontext():
                heard.append(window(member, records, batch_tokens))
    return [
        next((answer for answer in said if "error" in answer), {}) or elected(said, votes.pattern)
        for said in zip(*heard, strict=True)
    ]


def judge(ensemble: Together, split: Split) -> Judged:
    """Scores of an ensemble on any rows, as `tunelab ensemble` gave them on test.

    Raises:
        DataError: Naming every record that cannot be used.
    """
    first = ensemble.members[0]
    _, counts = encode_split(split, first.task)
    found = heard(ensemble, first, split)
    flat = {name: float(value) for name, value in found.scores.items()}
    return Judged(flat, found.tables, counts, found.predictions)


def heard(ensemble: Together, first: Trained, split: Split) -> Evaluated:
    """What the members say of a split, combined and scored."""
    if isinstance(ensemble.task, Labelled):
        said = [outputs(member, split) for member in ensemble.members]
        kind, rule = rule_of(ensemble)
        return evaluated(kind, rule.combine(kind.spoken(said)), said[0], split.rows)
    rows: Any = asked_of(first, split)
    if ensemble.weights is not None:
        return evaluate(ensemble.members, ensemble.weights, split, rows)
    votes = ensemble.sampling
    each = ballots(ensemble.members, split, rows, votes)
    return compared(first, [elected(said, votes.pattern) for said in zip(*each, strict=True)], votes.pattern)
