"""Writes the built-in data anew: `python -m tunelab.starter.build --texts DIR` (the same bytes every time)."""

import argparse
import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path

from tunelab.starter.bpe_tokenizer import train_tokenizer
from tunelab.starter.corpora import draw_documents, draw_instructions, draw_repetitions
from tunelab.starter.world import whole_world

SEED = 2026
REPETITION_DOCUMENTS = 8_000  # documents that only repeat themselves, read first
DOCUMENTS = 40_000  # of pre-training text, about 110 tokens each
VALIDATION_DOCUMENTS = 400  # documents to watch the loss on
TOKENIZER_DOCUMENTS = 10_000  # documents the tokenizer is learned from


def write_json_lines(path: Path, records: Iterable[Mapping[str, str]]) -> None:
    """Write records as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def build_starter(*, texts: Path | None = None, data: Path | None = None, tokenizer: Path | None = None) -> None:
    """Write texts, data set and tokenizer to the folders that are given.

    Args:
        texts: Folder for the pre-training text, one {"text": ...} a line: `readings.jsonl`, which is read first,
            `world.jsonl`, and documents of both that are held back to watch the loss on (`*_validation.jsonl`).
        data: Folder for `train.jsonl`, `validation.jsonl` and `test.jsonl`, the instruction set.
        tokenizer: Folder for the tokenizer's files.
    """
    splits = draw_instructions(SEED)
    if data is not None:
        for split, records in splits.items():
            write_json_lines(data / f"{split}.jsonl", records)
    if texts is None and tokenizer is None:
        return
    forbidden = {record["input"] for records in splits.values() for record in records}
    count = TOKENIZER_DOCUMENTS if texts is None else DOCUMENTS + VALIDATION_DOCUMENTS
    documents = list(draw_documents(whole_world(), seed=SEED, count=count, forbidden=forbidden))
    if texts is not None:
        readings = draw_repetitions(whole_world(), seed=SEED, count=REPETITION_DOCUMENTS + VALIDATION_DOCUMENTS)
        write_json_lines(texts / "readings.jsonl", ({"text": text} for text in islice(readings, REPETITION_DOCUMENTS)))
        write_json_lines(texts / "readings_validation.jsonl", ({"text": text} for text in readings))
        write_json_lines(texts / "world.jsonl", ({"text": text} for text in documents[:DOCUMENTS]))
        write_json_lines(texts / "world_validation.jsonl", ({"text": text} for text in documents[DOCUMENTS:]))
    if tokenizer is not None:
        train_tokenizer(documents[:TOKENIZER_DOCUMENTS]).save_pretrained(str(tokenizer))


def code_fingerprint() -> str:
    """A short name for the texts that this very code writes: it changes when any of it does."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m tunelab.starter.build", description=__doc__)
    parser.add_argument("--texts", type=Path, help="folder for the pre-training text")
    parser.add_argument("--data", type=Path, help="folder for the instruction set")
    parser.add_argument("--tokenizer", type=Path, help="folder for the tokenizer")
    arguments = parser.parse_args()
    if arguments.texts is None and arguments.data is None and arguments.tokenizer is None:
        parser.error("nothing to write: give --texts, --data or --tokenizer a folder")
    build_starter(texts=arguments.texts, data=arguments.data, tokenizer=arguments.tokenizer)


if __name__ == "__main__":
    main()
