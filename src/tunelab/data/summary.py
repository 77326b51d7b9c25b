"""Summary of the data of a run: lengths, sources, duplicates, leaks, labels, targets.  Pure: splits in, plain values
out.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from tunelab.data.data_sources import DataSplits, Split
from tunelab.data.examples import Example
from tunelab.data.leakage import duplicates_within, exact_leaks, near_empty_texts, near_leaks, token_duplicates
from tunelab.data.protocols import EncodingTask, Record
from tunelab.data.token_store import loss_weights_of, sequence_lengths
from tunelab.data.truncation import count_supervised

HISTOGRAM_BARS = 12  # of a histogram
NOTHING_UNKNOWN: Mapping[str, float] = MappingProxyType({})
QUANTILES = {"least": 0, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "most": 100}
PLACE_SUFFIX = re.compile(r" (line|row) \d+$")


class SummarizedTask(EncodingTask, Protocol):
    """A fitted task as the summary and the preview of data see it.

    Attributes:
        head: "causal" where tokens are learned, "sequence" where each text has one answer.
    """

    head: ClassVar[str]

    def data_summary(self, sources: DataSplits) -> dict[str, Any]:
        """Further entries of the summary that only this task knows: JSON values."""

    def target_text(self, record: Record) -> str:
        """The label or numbers of a record as text; empty where tokens are learned."""


def summarize_data(
    task: SummarizedTask,
    sources: DataSplits,
    examples: Mapping[str, Sequence[Example]],
    counts: Mapping[str, Mapping[str, int | float]],
    *,
    threshold: float | None,
    unknown: Mapping[str, float] = NOTHING_UNKNOWN,
    near_empty: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """The data report: everything known about the data before training.

    Args:
        task: Fitted, with its tokenizer.
        sources: The splits of records.
        examples: The splits as token ids.
        counts: Of each split, as `encode_split` gives them.
        threshold: Least likeness of near duplicates across splits, in (0, 1]; None does not look for them.
        unknown: Share of the text of each split that the tokenizer does not know, where it can tell.
        near_empty: Rows of each split with a text that says nothing, where they have been looked for.

    Returns:
        JSON values.  `splits`, `columns`, `notes` and `files` say what was read; `lengths`, `sources`, `duplicates`,
        `token_duplicates`, `leaks`, `unknown_tokens` and `near_empty` what is in it; `trained`, `format` and
        `template` (causal models), `labels` and `conflicts` (classes) and `targets` (numbers) what there is to learn.
    """
    filled = {name: split for name, split in sources.splits.items() if split.rows}
    report: dict[str, Any] = {
        "splits": {name: dict(row) for name, row in counts.items()},
        "notes": list(sources.notes),
        "files": dict(sources.file_hashes),
        "lengths": {name: length_distribution(sequence_lengths(examples[name])) for name in filled},
        "sources": {name: dict(Counter(row_sources(split))) for name, split in filled.items()},
        "columns": {name: use.as_dict() for name, use in sources.columns.items()},
        "unknown_tokens": {name: round(share, 4) for name, share in unknown.items()},
        "near_empty": near_empty_texts(task, sources, near_empty),
        "duplicates": duplicates_within(sources),
        "token_duplicates": token_duplicates(task, sources, examples),
        "leaks": {"exact": exact_leaks(sources), "near": near_leaks(task, sources, threshold)},
    }
    if task.head == "causal":
        trained = {name: count_trained_tokens(examples[name]) for name in filled}
        report["trained"] = {name: round(count / (counts[name]["tokens"] or 1), 4) for name, count in trained.items()}
    return report | task.data_summary(sources)


def count_trained_tokens(examples: Sequence[Example]) -> float:
    """Number of tokens of causal examples that a loss is taken on; the weight of a pair counts pairs instead."""
    if not examples or examples[0].second_start is None:
        return sum(loss_weights_of(examples))
    total = 0
    for example in examples:
        assert isinstance(example.target, list)
        for part in (slice(example.second_start), slice(example.second_start, None)):
            total += count_supervised([int(label) for label in example.target[part]])
    return total


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The quantiles that `QUANTILES` names; each is one of `values`."""
    levels = np.percentile(np.array(values), list(QUANTILES.values()), method="lower").tolist()
    return dict(zip(QUANTILES, levels, strict=True))


def length_distribution(lengths: Sequence[int]) -> dict[str, Any]:
    """Quantiles and a histogram of lengths in tokens; bar i counts from edge i up to, not with, edge i + 1."""
    if not lengths:
        return {}
    least, most = min(lengths), max(lengths)
    width = -(-(most - least + 1) // HISTOGRAM_BARS)
    bars = [0] * ((most - least) // width + 1)
    for length, rows in Counter(lengths).items():
        bars[(length - least) // width] += rows
    edges = [least + width * bar for bar in range(len(bars) + 1)]
    return {"quantiles": quantiles(lengths), "edges": edges, "rows": bars}


def row_sources(split: Split) -> Sequence[str]:
    """The source that each row comes from: as the split names it, else the file of its place."""
    named: Sequence[str] = getattr(split, "sources", None) or [PLACE_SUFFIX.sub("", place) for place in split.locations]
    return named
