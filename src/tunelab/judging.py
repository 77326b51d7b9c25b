"""Scores of a trained run on any file, by the way that training's test pass takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from tunelab.assemble import Prepared, fresh_adapter, make_data
from tunelab.data.examples import Example
from tunelab.data.one_source import Split
from tunelab.data.prepare import Sources, encode_split
from tunelab.data.records import Records, read_records
from tunelab.errors import TuneLabError
from tunelab.json_lines import Row, read_lines, write_lines
from tunelab.models.document_attention import on_device
from tunelab.models.soft_prompt import prompt_ids, prompted
from tunelab.record import RunFolder
from tunelab.reference import with_reference
from tunelab.restore import Trained
from tunelab.scoring import test_rows
from tunelab.settings import Run

ROLES = {"train": "training", "validation": "choosing the best checkpoint", "test": "its test scores"}


@dataclass
class Judged:
    """What a file says of a model.

    Attributes:
        scores: By bare name.
        tables: Confusion matrix and per-class scores, where there are any.
        counts: The line of the data report.
        predictions: One dict per row, in the order of rows.
    """

    scores: dict[str, float]
    tables: dict[str, Any]
    counts: dict[str, int | float]
    predictions: list[dict[str, Any]]


def read_split(settings: Run, source: str) -> tuple[Records, Split]:
    """The records of a file, read as the run read its own.

    Raises:
        DataError: If the file cannot be read.
    """
    data = settings.data
    same = source in {str(data.get(name)) for name in ROLES}
    records = read_records(
        source,
        encoding=str(data["encoding"]),
        on_bad=str(data["on_bad"]),
        quoting=str(data["quoting"]),
        header=data.get("header") if same else None,
    )
    return records, Split(records.rows, [records.where(i) for i in range(len(records.rows))])


def judge(trained: Trained, split: Split) -> Judged:
    """Score a model, in the batches, the order and the precision of training's test pass.

    Raises:
        DataError: Naming every record that cannot be used.
    """
    settings, task, model = trained.settings, trained.task, trained.model
    encoded, counts = encode_split(split, task)
    examples: Sequence[Example] = list(encoded)
    if task.needs_reference:
        base = fresh_adapter(settings, task, trained.tokenizer).model
        base.set_attn_implementation(model.config._attn_implementation)
        examples = list(with_reference(settings, task, base, {"test": examples})["test"])
    examples = prompted(examples, prompt_ids(model))
    empty = Split()
    sources = Sources({"train": empty, "validation": empty, "test": split}, {}, [])
    prepared = Prepared(
        settings, task, sources, trained.tokenizer, {"test": examples}, {"test": counts}, adapter=trained.adapter
    )
    scores, chosen = task.scores().to(model.device), test_rows(prepared)
    found: list[dict[str, Any]] = []
    with trained.use():
        for step in make_data(prepared).loader("test"):
            for cpu in step.micros:
                micro = on_device(cpu, model.device)
                logits = task.logits(model, micro)
                scores.update(logits, micro)
                rows = [row for row in micro.rows.tolist() if row >= 0 and (chosen is None or row in chosen)]
                asked = [split.rows[row] for row in rows]
                if chosen is None:
                    found += task.predictions(model, micro, logits, asked)
                elif rows:
                    found += task.answered(model, rows, asked)
        flat, tables = scores.compute(), scores.report()
    tables |= task.tables(found)
    found.sort(key=lambda row: int(row["row"]))
    # in single precision, as Lightning keeps what a test pass logs
    numbers = {name: float(torch.tensor(value, dtype=torch.float32)) for name, value in flat.items()}
    numbers |= {name: float(value) for name, value in task.summary(found).items()}
    return Judged(numbers, tables, counts, found)


def looks(folder: RunFolder, records: Records) -> list[str]:
    """What is to be said of the file: whether the run has seen it, and how often it was looked at; counts this look.

    A file that is looked at until a score pleases no longer tests anything.
    """
    card = folder.read_card()
    config = card["config"]["data"]
    shas = card["data"]["files"]
    uses = [why for name, why in ROLES.items() if config.get(name) and shas.get(str(config[name])) == records.sha256]
    told = [f"the run used this very file for {' and '.join(uses)}"] if uses else []
    past = read_lines(folder.looks) if folder.looks.is_file() else []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    now: Row = {"time": time, "sha256": records.sha256, "data": records.source}
    count = 1 + sum(look["sha256"] == records.sha256 for look in past)
    try:
        write_lines(folder.looks, [*past, now])
    except TuneLabError as fault:
        told.append(f"this look is not counted: {fault}")
    return [*told, f"look {count} at this file with this run; a choice made by it needs another file to be tested"]
