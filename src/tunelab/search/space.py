"""The search space: dimensions (choices, numeric ranges, log scale), conditional settings, and Hydra's sweep syntax
(`interval(1e-5,1e-3)`, `adamw,sgd`) that describes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from tunelab.config.quoting import quote_hydra
from tunelab.errors import first_line
from tunelab.language.translation import translate

Scalar = str | int | float | bool | None  # what a study stores
LOG_SCALE_RATIO = 100  # a positive range of two decades or more is searched on a log scale


class SuggestingTrial(Protocol):
    """The part of an Optuna trial that a dimension calls."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A float of a range."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """An integer of a range."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of several values."""


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: As a study stores them; a list or a mapping is stored as its text.
        texts: The same values as text behind `key=` on a command line.
    """

    values: tuple[Scalar, ...]
    texts: tuple[str, ...]

    def suggest(self, trial: SuggestingTrial, key: str) -> Scalar:
        """The value that the trial suggests."""
        return trial.suggest_categorical(key, self.values)

    def text(self, value: Scalar) -> str:
        """A value as text behind `key=`."""
        return self.texts[self.index_of(value)]

    def index_of(self, value: Scalar) -> int:
        """The index of a value; 1, 1.0 and true are three different values.

        Raises:
            ValueError: If it is not one of the values.
        """
        for index, known in enumerate(self.values):
            if type(known) is type(value) and known == value:
                return index
        return self.values.index(value)

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in this dimension."""
        return value in self.values

    def grid_values(self) -> tuple[Scalar, ...]:
        """All values, for a grid."""
        return self.values

    def describe(self) -> str:
        """The dimension as text, for messages."""
        return translate("one of ") + ", ".join(self.texts)


@dataclass(frozen=True)
class NumericRange:
    """A range of numbers, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        integer: Whether only integers are suggested.
        log: Whether values are suggested on a log scale.
    """

    low: float
    high: float
    integer: bool = False
    log: bool = False

    def suggest(self, trial: SuggestingTrial, key: str) -> Scalar:
        """The value that the trial suggests."""
        if self.integer:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def text(self, value: Scalar) -> str:
        """A value as text behind `key=`."""
        return repr(value)

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in this dimension."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or float(value).is_integer())

    def grid_values(self) -> tuple[Scalar, ...] | None:
        """All values of a range of integers; None for a continuous range."""
        return tuple(range(int(self.low), int(self.high) + 1)) if self.integer else None

    def describe(self) -> str:
        """The dimension as text, for messages."""
        kind = translate("integers ") if self.integer else ""
        return translate(
            "{kind}{low:g} to {high:g}{scale}",
            kind=kind,
            low=self.low,
            high=self.high,
            scale=translate(", log scale") if self.log else "",
        )


Dimension = Choice | NumericRange


def make_range(low: float, high: float, *, integer: bool = False, log: bool | None = None) -> NumericRange:
    """A range; without `log` its scale follows from its width.

    Raises:
        ValueError: If the range is empty, or on a log scale but not positive.
    """
    if not low < high:
        raise ValueError(
            translate("{low:g} to {high:g} is no range; give the smaller number first", low=low, high=high)
        )
    if log and low <= 0:
        raise ValueError(translate("{low:g} has no logarithm; a log scale starts above 0", low=low))
    wide = low > 0 and high / low >= LOG_SCALE_RATIO * (1 - 1e-12)  # 1e-3 / 1e-5 is 99.99999999999999
    return NumericRange(low, high, integer, wide if log is None else log)


def parse_dimension(key: str, words: Any, default: Any = None) -> Dimension:
    """The dimension of a space file or a sweep override.

    Args:
        key: The setting that varies, for messages.
        words: Hydra's sweep syntax, such as `interval(1e-5,1e-3)`, `int(interval(1,8))`, `tag(log,interval(1,5))`,
            `range(1,5)` or `a,b`; or a list of values.
        default: The default value; where it is an integer, so is the range.

    Raises:
        ValueError: If it does not describe several values.
    """
    if isinstance(words, Sequence) and not isinstance(words, str):
        texts = tuple(dict.fromkeys(to_hydra_text(value) for value in words))
        if not texts:
            raise ValueError(translate("{key}: an empty list has no value to try", key=key))
        return Choice(tuple(stored_value(key, text) for text in texts), texts)
    if not isinstance(words, str):
        raise ValueError(
            translate(
                "{key}: {words!r} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b",
                key=key,
                words=words,
            )
        )
    return dimension_of_override(parse_sweep_override(key, words), default)


def parse_sweep_override(key: str, words: str) -> Override:
    """An override, parsed by Hydra.

    Raises:
        ValueError: If Hydra cannot parse it.
    """
    try:
        return OverridesParser.create().parse_override(f"{key}={words}")
    except HydraException as fault:
        raise ValueError(
            translate(
                "{key}={words}: {fault}; write interval(1e-5,1e-3), range(1,5) or a,b",
                key=key,
                words=words,
                fault=first_line(fault),
            )
        ) from fault


def dimension_of_override(override: Override, default: Any = None) -> Dimension:
    """The dimension of a sweep override.

    Args:
        override: As Hydra parsed it.
        default: The default value; see `parse_dimension`.

    Raises:
        ValueError: If it holds one value only, or an empty range.
    """
    key, values = override.key_or_group, override.value()
    if isinstance(values, IntervalSweep):
        low, high = cast(float, values.start), cast(float, values.end)
        whole = is_integer_interval(override) or (isinstance(default, int) and not isinstance(default, bool))
        log = True if "log" in values.tags else False if "linear" in values.tags else None
        try:
            if whole and not (float(low).is_integer() and float(high).is_integer()):
                raise ValueError(
                    translate(
                        "{low:g} to {high:g}: this setting is an integer, so both ends must be", low=low, high=high
                    )
                )
            return make_range(low, high, integer=whole, log=log)
        except ValueError as fault:
            raise ValueError(f"{key}: {fault}") from fault
    if isinstance(values, RangeSweep) and not values.shuffle and values.step == 1 and isinstance(values.start, int):
        last = int(cast(float, values.stop)) - 1  # Hydra's range leaves its end out
        if last > values.start:
            return make_range(values.start, last, integer=True, log=False)
    if isinstance(values, ChoiceSweep | RangeSweep):
        texts = tuple(dict.fromkeys(override.sweep_string_iterator()))
        return Choice(tuple(stored_value(key, text) for text in texts), texts)
    raise ValueError(
        translate(
            "{input_line} is one value; a search needs several, such as interval(1e-5,1e-3) or a,b",
            input_line=override.input_line,
        )
    )


def is_integer_interval(override: Override) -> bool:
    """Whether an interval is of integers, as in `int(interval(1,8))`; Hydra turns a bare one into floats."""
    return "int(" in (override.input_line or "").replace(" ", "")


def stored_value(key: str, text: str) -> Scalar:
    """The value that a study stores for the text behind `key=`; lists and mappings stay text."""
    value: Any = OverridesParser.create().parse_override(f"{key}={text}").value()
    if isinstance(value, QuotedString):
        return str(value.text)
    return value if value is None or isinstance(value, str | int | float | bool) else text


def to_hydra_text(value: Any) -> str:
    """A plain value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(to_hydra_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{to_hydra_text(inner)}" for name, inner in value.items()) + "}"
    return quote_hydra(str(value))


Params = dict[str, Scalar]


@dataclass(frozen=True)
class Condition:
    """Settings that vary only where the setting `key` has `value`."""

    key: str
    value: Scalar
    dimensions: Mapping[str, Dimension]

    @property
    def label(self) -> str:
        """The condition as `key=value`."""
        return f"{self.key}={self.value}"

    def holds_for(self, params: Mapping[str, Scalar]) -> bool:
        """Whether a configuration meets the condition."""
        return self.key in params and params[self.key] == self.value


@dataclass(frozen=True)
class Space:
    """The settings that a search varies.

    Attributes:
        unconditional: Settings of every configuration.
        conditions: Settings of those configurations only that meet a condition.
    """

    unconditional: Mapping[str, Dimension]
    conditions: tuple[Condition, ...] = field(default=())

    def suggest(self, trial: SuggestingTrial) -> Params:
        """The configuration that a trial suggests."""
        params = {key: dimension.suggest(trial, key) for key, dimension in self.unconditional.items()}
        for condition in self.conditions:
            if condition.holds_for(params):
                params |= {
                    key: self.stored_dimension(key, dimension).suggest(trial, key)
                    for key, dimension in condition.dimensions.items()
                }
        return params

    def stored_dimension(self, key: str, dimension: Dimension) -> Dimension:
        """A conditional dimension as a study stores it: Optuna needs one list of values per name, over all conditions.

        So a sampler that ignores conditions may suggest a value of another condition; `contains` then says no.
        """
        if not isinstance(dimension, Choice):
            return dimension
        others = [condition.dimensions[key] for condition in self.conditions if key in condition.dimensions]
        pairs = [pair for one in others if isinstance(one, Choice) for pair in zip(one.values, one.texts, strict=True)]
        each = {(type(value), value): (value, text) for value, text in pairs}
        values, texts = zip(*each.values(), strict=True)
        return Choice(values, texts)

    def all_dimensions(self) -> dict[str, Dimension]:
        """Every dimension by key; of two under one key, the first."""
        dimensions = dict(self.unconditional)
        for condition in self.conditions:
            for key, dimension in condition.dimensions.items():
                dimensions.setdefault(key, dimension)
        return dimensions

    def active_dimensions(self, params: Mapping[str, Scalar]) -> dict[str, Dimension]:
        """The dimensions that apply to a configuration."""
        dimensions = dict(self.unconditional)
        for condition in self.conditions:
            if condition.holds_for(params):
                dimensions |= condition.dimensions
        return dimensions

    def overrides(self, params: Mapping[str, Scalar]) -> list[str]:
        """A configuration as overrides of a command line."""
        dimensions = self.active_dimensions(params)
        return [f"{key}={dimensions[key].text(value)}" for key, value in params.items()]

    def contains(self, params: Mapping[str, Scalar]) -> bool:
        """Whether a configuration lies in this space, with no setting missing or superfluous."""
        dimensions = self.active_dimensions(params)
        return dimensions.keys() == params.keys() and all(dimensions[key].contains(v) for key, v in params.items())

    def grid(self) -> Iterator[Params]:
        """Every configuration.

        Raises:
            ValueError: Naming the settings with a continuous range.
        """
        continuous = [key for key, dimension in self.all_dimensions().items() if dimension.grid_values() is None]
        if continuous:
            raise ValueError(
                translate(
                    "a grid needs single values, and {names} is a continuous range; list values "
                    "(lr=1e-5,3e-5) or sample the range (search=random, search=bayes)",
                    names=", ".join(continuous),
                )
            )
        for base in combinations(self.unconditional):
            inner = {
                k: d
                for condition in self.conditions
                if condition.holds_for(base)
                for k, d in condition.dimensions.items()
            }
            yield from (base | more for more in combinations(inner))

    def size(self) -> int | None:
        """Number of configurations; None with a continuous range."""
        if any(dimension.grid_values() is None for dimension in self.all_dimensions().values()):
            return None
        return sum(1 for _ in self.grid())


def combinations(dimensions: Mapping[str, Dimension]) -> Iterator[Params]:
    """Every combination of the values of several dimensions; of none, one empty combination."""
    points = [dimension.grid_values() or () for dimension in dimensions.values()]
    for values in product(*points):
        yield dict(zip(dimensions, values, strict=True))


def build_space(params: Mapping[str, Any], when: Mapping[str, Any], defaults: Mapping[str, Any]) -> Space:
    """The space of a `search.space` block.

    Args:
        params: Hydra's sweep syntax or a list of values, by setting.
        when: The same, by `key=value` of the setting they depend on.
        defaults: The default value of each setting.

    Raises:
        ValueError: Naming every fault, one per line.
    """
    faults: list[str] = []

    def parse_block(block: Mapping[str, Any]) -> dict[str, Dimension]:
        dimensions: dict[str, Dimension] = {}
        for key, words in block.items():
            if words is None:  # a setting of a shipped space that the user takes out: search.space.params.lr=null
                continue
            try:
                dimensions[key] = parse_dimension(key, words, defaults.get(key))
            except ValueError as fault:
                faults.append(str(fault))
        return dimensions

    unconditional = parse_block(params)
    conditions = []
    for test, block in when.items():
        key, equals, text = str(test).partition("=")
        if not equals or key not in params or not isinstance(block, Mapping):
            faults.append(
                translate(
                    "search.space.when: '{test}' must be KEY=VALUE of a setting that varies, with settings below it",
                    test=test,
                )
            )
            continue
        value = stored_value(key, text)
        if key in unconditional and not unconditional[key].contains(value):
            faults.append(
                translate(
                    "search.space.when: {key} never is {words}; it is {describe}",
                    key=key,
                    words=text,
                    describe=unconditional[key].describe(),
                )
            )
        if twice := sorted(set(block) & set(params)):
            faults.append(
                translate(
                    "search.space.when.{test}: {names} varies unconditionally already; name it once",
                    test=test,
                    names=", ".join(twice),
                )
            )
        conditions.append(Condition(key, value, parse_block(block)))
    faults += conflicting_kinds(conditions)
    if not params:
        faults.append(
            translate(
                "nothing varies: give several values (lr=1e-5,3e-5), a range "
                "(lr=interval(1e-5,1e-3)) or search/space=NAME"
            )
        )
    if faults:
        raise ValueError("\n".join(faults))
    return Space(unconditional, tuple(conditions))


def conflicting_kinds(conditions: Sequence[Condition]) -> list[str]:
    """Faults of settings that are a list under one condition and a range under another, or ranges on two scales."""
    kinds: dict[str, dict[tuple[str, bool, bool], str]] = {}
    for condition in conditions:
        for key, one in condition.dimensions.items():
            kind = ("list", False, False) if isinstance(one, Choice) else ("range", one.integer, one.log)
            kinds.setdefault(key, {}).setdefault(kind, condition.label)
    return [
        translate(
            "search.space.when: {key} is of one kind under {names}; a study keeps one kind for a "
            "name: list values everywhere, or give ranges on the same scale "
            "(tag(log,interval(...)))",
            key=key,
            names=" and of another under ".join(seen.values()),
        )
        for key, seen in kinds.items()
        if len(seen) > 1
    ]


def space_as_dict(space: Space) -> dict[str, dict[str, Any]]:
    """A space as plain values: ends and scale of each range, values and texts of each choice.

    A conditional setting has its condition under `when`.
    """
    plain = {key: dimension_as_dict(dimension) for key, dimension in space.all_dimensions().items()}
    for condition in space.conditions:
        for key in condition.dimensions:
            plain[key].setdefault("when", condition.label)
    return plain


def dimension_as_dict(dimension: Dimension) -> dict[str, Any]:
    """A dimension as plain values."""
    if isinstance(dimension, Choice):
        return {"values": list(dimension.values), "texts": list(dimension.texts)}
    return {"low": dimension.low, "high": dimension.high, "integer": dimension.integer, "log": dimension.log}
