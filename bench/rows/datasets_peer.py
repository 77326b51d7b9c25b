"""The preparation of instructions that a user of Hugging Face `datasets` writes, as two processes.

    python datasets_peer.py FILE FOLDER_OF_THE_TOKENIZER

Reading, a split of 10 % twice, ids and labels of every row.  It looks for no duplicates, no leakage, no unusable rows,
and reports nothing.  It needs the environment of `bench/peers` and is called by `run.py`.
"""

import argparse
import os
import tempfile
from typing import Any

from datasets import disable_progress_bars, load_dataset
from transformers import AutoTokenizer

IGNORED = -100


def main() -> None:
    """Prepare, and print how many rows there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("tokenizer")
    arguments = parser.parse_args()
    disable_progress_bars()  # they would fill the page of results
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        prompts = tokenizer([f"{text}\n" for text in rows["instruction"]])["input_ids"]
        answers = tokenizer(rows["output"], add_special_tokens=False)["input_ids"]
        pairs = [(one, [*two, tokenizer.eos_token_id]) for one, two in zip(prompts, answers, strict=True)]
        return {
            "input_ids": [one + two for one, two in pairs],
            "labels": [[IGNORED] * len(one) + two for one, two in pairs],
        }

    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("json", data_files=arguments.file, split="train", cache_dir=cache)
        parts = rows.train_test_split(0.2, seed=0)
        rest = parts["test"].train_test_split(0.5, seed=0)
        for part in (parts["train"], rest["train"], rest["test"]):
            print(len(part.map(encode, batched=True, num_proc=os.cpu_count(), remove_columns=part.column_names)))


if __name__ == "__main__":
    main()
