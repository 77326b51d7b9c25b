"""Hydra's words for several values (`interval(1e-5,1e-3)`, `adamw,sgd`) as dimensions of a search."""

from collections.abc import Sequence
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from tunelab.search.dimension import Choice, Dimension, Scalar, span


def dimension(key: str, words: Any, default: Any = None) -> Dimension:
    """The dimension that a space file or a command line describes.

    Args:
        key: Which setting varies; for messages.
        words: Hydra's text, such as `interval(1e-5,1e-3)`, `int(interval(1,8))`, `tag(log,interval(1,5))`, `range(1,5)`
            or `a,b`; or a list of values.
        default: The value without a search.  Where it is a whole number, an interval is one of whole numbers.

    Raises:
        ValueError: If it describes no set of values.
    """
    if isinstance(words, Sequence) and not isinstance(words, str):
        texts = tuple(dict.fromkeys(written(value) for value in words))
        if not texts:
            raise ValueError(f"{key}: an empty list holds no value to try")
        return Choice(tuple(stored(key, text) for text in texts), texts)
    if not isinstance(words, str):
        raise ValueError(f"{key}: {words!r} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b")
    return of_override(parsed(key, words), default)


def parsed(key: str, words: str) -> Override:
    """An override as Hydra reads it.

    Raises:
        ValueError: If Hydra cannot.
    """
    try:
        return OverridesParser.create().parse_override(f"{key}={words}")
    except HydraException as fault:
        first = str(fault).splitlines()[0]
        raise ValueError(f"{key}={words}: {first}; write interval(1e-5,1e-3), range(1,5) or a,b") from fault


def of_override(override: Override, default: Any = None) -> Dimension:
    """The dimension of an override that names several values.

    Args:
        override: As Hydra read it.
        default: The value without a search; see `dimension`.

    Raises:
        ValueError: If it names one value only, or an empty range.
    """
    key, values = override.key_or_group, override.value()
    if isinstance(values, IntervalSweep):
        low, high = cast(float, values.start), cast(float, values.end)
        whole = override_is_int(override) or (isinstance(default, int) and not isinstance(default, bool))
        log = True if "log" in values.tags else False if "linear" in values.tags else None
        try:
            if whole and not (float(low).is_integer() and float(high).is_integer()):
                raise ValueError(f"{low:g} to {high:g}: this setting is a whole number, so must be both ends")
            return span(low, high, integer=whole, log=log)
        except ValueError as fault:
            raise ValueError(f"{key}: {fault}") from fault
    if isinstance(values, RangeSweep) and not values.shuffle and values.step == 1 and isinstance(values.start, int):
        last = int(cast(float, values.stop)) - 1  # Hydra's range leaves its end out
        if last > values.start:
            return span(values.start, last, integer=True, log=False)
    if isinstance(values, ChoiceSweep | RangeSweep):
        texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
        return Choice(tuple(stored(key, text) for text in texts), texts)
    raise ValueError(f"{override.input_line} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b")


def override_is_int(override: Override) -> bool:
    """Whether an interval is of whole numbers: `int(interval(1,8))`; Hydra makes floats of a bare one."""
    return "int(" in (override.input_line or "").replace(" ", "")


def stored(key: str, text: str) -> Scalar:
    """The value that a study stores for a text behind `key=`; lists and mappings keep their text."""
    value: Any = OverridesParser.create().parse_override(f"{key}={text}").value()
    if isinstance(value, QuotedString):
        return str(value.text)
    return value if value is None or isinstance(value, str | int | float | bool) else text


def written(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{written(inner)}" for name, inner in value.items()) + "}"
    return quoted(str(value))


def quoted(text: str) -> str:
    """A text as one Hydra value: bare where Hydra reads it back as it is, else in quotes."""
    try:
        if OverridesParser.create().parse_override(f"key={text}").value() == text:
            return text
    except HydraException:
        pass
    escaped = text.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}'" if not escaped.endswith("\\") else f"'{escaped}\\'"
