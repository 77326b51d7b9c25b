"""The vocabulary of a tokenizer: how many ids it spans, and new special tokens at its end."""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

UNUSED_TOKEN = "<|unused_{}|>"  # what stands at an id that a published tokenizer leaves out


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The rows that an embedding needs: the largest id plus one.  Some tokenizers have fewer tokens than that."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def add_special_words(tokenizer: PreTrainedTokenizerBase, words: dict[str, str | list[str]]) -> None:
    """Add special tokens behind the largest id.

    The library counts tokens to find the next id, which is taken already where some ids are left out.

    Args:
        tokenizer: Changed in place.
        words: As `add_special_tokens` takes them; a list adds to those that are there.

    Raises:
        ConfigError: If the tokenizer leaves out ids and its file cannot be completed.
    """
    if missing := missing_ids(tokenizer):
        fill_missing_ids(tokenizer, missing)
    tokenizer.add_special_tokens(words, replace_extra_special_tokens=False)  # type: ignore[arg-type]


def missing_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids below the largest one that no token has."""
    return sorted(set(range(vocabulary_size(tokenizer))) - set(tokenizer.get_vocab().values()))


def fill_missing_ids(tokenizer: PreTrainedTokenizerBase, missing: Sequence[int]) -> None:
    """Put a token that no text contains at each id that is left out.

    Raises:
        ConfigError: If the tokenizer does not keep its words as a table.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    text = json.loads(backend.to_str()) if backend is not None else {}
    table = text.get("model", {}).get("vocab")
    if not isinstance(table, dict):
        raise ConfigError(
            translate(
                "the tokenizer leaves out {count} ids, such as {missing}, so no token can be added "
                "behind the others; take an adapter that adds none (adapter=lora), or a tokenizer "
                "without gaps",
                count=len(missing),
                missing=missing[0],
            )
        )
    table.update({UNUSED_TOKEN.format(index): index for index in missing})
    setattr(tokenizer, "_tokenizer", Tokenizer.from_str(json.dumps(text)))  # noqa: B010  # it has no public setter
