"""One generated answer against the wanted one, as a line of the predictions file.  Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from tunelab.data.conversation import Conversation
from tunelab.errors import DataError
from tunelab.generate.decode import Answer
from tunelab.tasks.answer_tally import GROUPS
from tunelab.tasks.choices import Choices, Classes, bare
from tunelab.tasks.text_scores import exact_match, rouge_l, token_f1


def judged(
    row: int, talk: Conversation, wanted: str, said: tuple[str, Answer], labels: Sequence[str]
) -> dict[str, Any]:
    """Scores of an answer, with all that is needed to compute them again.

    Args:
        row: Index of the record.
        talk: The record.
        wanted: The answer as the record has it.
        said: The generated text, and how it ended.
        labels: What answers are sorted into where records name a label only.
    """
    text, answer = said
    return {
        "row": row,
        **{name: talk.meta[name] for name in GROUPS if talk.meta.get(name) is not None},
        **choice(talk, text, labels),
        "prompt": "\n\n".join(message.content for message in talk.messages[: talk.last_answer() or 0]),
        "reference": wanted,
        "prediction": text,
        "exact_match": exact_match(text, wanted),
        "token_f1": token_f1(text, wanted),
        "rougeL": rouge_l(text, wanted),
        "ended": answer.ended,
        **({"prompt_cut": answer.cut} if answer.cut else {}),
    }


def choice(talk: Conversation, text: str, labels: Sequence[str]) -> dict[str, Any]:
    """Which choice was right and which one an answer means; nothing where the record offers none."""
    offered = choices_of(talk, labels)
    if offered is None:
        return {}
    meant = offered.meant(text)
    found = {"label": offered.texts[offered.right], "choice": None if meant is None else offered.texts[meant]}
    return {"choices": list(offered.texts), **found} if talk.meta.get("choices") is not None else found


def choices_of(talk: Conversation, labels: Sequence[str]) -> Choices | None:
    """What a record offers to choose from; None where it offers nothing.

    Args:
        talk: The record.
        labels: What answers are sorted into where records name a label only; empty where that says nothing.

    Raises:
        DataError: If its choices cannot be used.
    """
    label = talk.meta.get("label")
    if talk.meta.get("choices") is not None:
        return Choices.read(talk.meta["choices"], label, written(talk))
    if labels and isinstance(label, str):
        return Choices.read(labels if label in labels else (*labels, label), label, written(talk))
    return None


def classes_of(talks: Iterable[Conversation]) -> Classes:
    """What the answers of the training split are sorted into.

    Where no record offers choices, labels serve, if every record has one and it is its answer: a column named
    `label` may as well hold something else.
    """
    first: tuple[str, ...] = ()
    closed, most = True, 0
    labels: dict[str, str] | None = {}  # as compared, and as written; None once a label was no answer
    for talk in talks:
        if texts := texts_of(talk):
            first = first or texts
            closed, most = closed and set(texts) == set(first), max(most, len(texts))
        label = talk.meta.get("label")
        if labels is not None and isinstance(label, str) and bare(label) == bare(written(talk)):
            labels[bare(label)] = label
        else:
            labels = None
    if first:
        return Classes(tuple(sorted(first))) if closed else Classes.places(most)
    return Classes(tuple(sorted(labels.values()))) if labels and len(labels) > 1 else Classes()


def texts_of(talk: Conversation) -> tuple[str, ...] | None:
    """The choices of a record; None where there are none, or they cannot be read, which `encode` tells with a place."""
    try:
        offered = choices_of(talk, ())
    except DataError:
        return None
    return offered.texts if offered else None


def written(talk: Conversation) -> str:
    """The last answer as the record has it."""
    last = talk.last_answer()
    return "" if last is None else talk.messages[last].content.strip()
