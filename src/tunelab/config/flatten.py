"""Nested settings as one level of dotted names."""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

Leaf = TypeVar("Leaf")


def flatten(
    values: Mapping[str, Leaf], above: str = "", *, keep_empty: bool = False, index_lists: bool = False
) -> dict[str, Leaf]:
    """The leaves of nested mappings by dotted name, in their order.

    Args:
        values: Nested mappings.
        above: Prefix of every name, with its dot.
        keep_empty: Whether an empty mapping is a leaf; else it leaves nothing.
        index_lists: Whether a list that holds mappings is entered too, its items named by index.
    """
    flat: dict[str, Leaf] = {}
    for name, value in values.items():
        inner: object = value
        if index_lists and isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value):
            inner = {str(index): item for index, item in enumerate(value)}
        if isinstance(inner, Mapping) and (inner or not keep_empty):
            flat |= flatten(
                cast(Mapping[str, Leaf], inner), f"{above}{name}.", keep_empty=keep_empty, index_lists=index_lists
            )
        else:
            flat[f"{above}{name}"] = value
    return flat
