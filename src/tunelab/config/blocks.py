"""Blocks of a config as frozen dataclasses: plain values converted by annotation, with all faults at once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, ClassVar, Literal, Self, TypeAlias, TypeVar, Union, cast, get_args, get_origin

from tunelab.config.other_frameworks import answer_other_name
from tunelab.language.translation import translate

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonBlock: TypeAlias = Mapping[str, JsonValue]
NOT_SET = "???"  # how a yaml marks a value that has no default
_Value = TypeVar("_Value")


class UnknownKeyFault(str):
    """The fault of a key that no block has.

    Attributes:
        key: Its dotted name.
    """

    key: str

    def __new__(cls, key: str, advice: str) -> Self:
        """A fault that ends in some advice."""
        fault = super().__new__(cls, translate("{key} is no setting; {advice}", key=key, advice=advice))
        fault.key = key
        return fault


@dataclass(frozen=True)
class Range:
    """The legal numbers of a field, as a part of its annotation: `Annotated[float, Range(0, 1)]`.

    Attributes:
        low: The smallest legal number.
        high: The largest legal number.
        above_low: Whether `low` itself is illegal.
    """

    low: float
    high: float
    above_low: bool = False

    def fault(self, name: str, value: float) -> str | None:
        """The fault of a number; None if it has none."""
        if self.low <= value <= self.high and not (self.above_low and value <= self.low):
            return None
        return translate(
            "{name}={value} is out of range; it must be above {low:.15g} and at most {high:.15g}"
            if self.above_low
            else "{name}={value} is out of range; it must be at least {low:.15g} and at most {high:.15g}",
            name=name,
            value=value,
            low=self.low,
            high=self.high,
        )


@dataclass(frozen=True)
class OnlyFor:
    """The kinds of a block that have a field, as a part of its annotation."""

    kinds: tuple[str, ...]


@dataclass(frozen=True)
class IfMissing:
    """The remedy for a missing value, as a part of an annotation; `{name}` in it is the key."""

    advice: str


@dataclass(frozen=True)
class OrTarget:
    """A part of an annotation: beside its choices a value may be the dotted name of a function of another package."""


@dataclass(frozen=True)
class NullIsDefault:
    """A part of an annotation: null stands for the field's default."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of the config.

    Attributes:
        key_order: The keys it was read from, in their order; empty for one made in code, which has all its fields.
        null_keys: Those of them that were null where null stands for the default.
    """

    key_order: tuple[str, ...] = field(default=(), repr=False, compare=False)
    null_keys: tuple[str, ...] = field(default=(), repr=False, compare=False)

    selector: ClassVar[str] = ""  # the key that picks a subclass, for a block with several
    variants: ClassVar[dict[str, type["Block"]]] = {}  # the subclasses, by the value of that key
    default_variant: ClassVar[str] = ""  # where an old run folder lacks that key

    def __init_subclass__(cls, *, selector: str = "", default: str = "", names: Sequence[str] = ()) -> None:
        """Register a subclass under its names; `selector` begins a family of subclasses."""
        super().__init_subclass__()
        if selector:
            cls.selector, cls.default_variant, cls.variants = selector, default, {}
        for name in names:
            cls.variants[name] = cls

    @classmethod
    def parse(cls, values: JsonBlock, name: str, faults: list[str]) -> Self:
        """The block that plain values describe.

        Where a value cannot be used the block has its default, or a placeholder, so that checks between blocks can go
        on and all faults are reported at once.

        Args:
            values: Every key and value, interpolations resolved.
            name: Of the block, as messages call it; empty for the whole config.
            faults: Receives one line for each fault.
        """
        kind = cls.variant_of(values, name, faults)
        prefix, parsed, known = f"{name}." if name else "", dict[str, object](), block_fields(kind)
        for key, value in values.items():
            if key not in known:
                if not kind.take_unknown(key, value, prefix, parsed, faults):
                    faults.append(kind.unknown_key(key, prefix, values))
                continue
            hint, default = known[key].type, default_of(known[key])
            before = len(faults)
            parsed[key] = convert(hint, value, f"{prefix}{key}", faults, default)
            if len(faults) > before and parsed[key] is None:
                parsed[key] = placeholder(hint) if default is MISSING else default
        for key, entry in known.items():
            if key not in values and default_of(entry) is MISSING:
                faults.append(missing_fault(f"{prefix}{key}", entry.type))
                parsed[key] = placeholder(entry.type)
        nulls = tuple(key for key, value in values.items() if value is None and parsed.get(key) is not None)
        return cast(Self, kind(**parsed, key_order=tuple(values), null_keys=nulls))

    @classmethod
    def variant_of(cls, values: JsonBlock, name: str, faults: list[str]) -> "type[Block]":
        """The subclass that the selecting key names; the first one where it names none, which is a fault."""
        if not cls.selector or cls in cls.variants.values():
            return cls
        value = values.get(cls.selector, cls.default_variant)
        if isinstance(value, str) and value in cls.variants:
            return cls.variants[value]
        if cls.selector not in values:  # else the value itself is reported
            faults.append(missing_fault(f"{name}.{cls.selector}"))
        elif isinstance(value, str) and value != NOT_SET:
            faults.append(choice_fault(f"{name}.{cls.selector}", value, tuple(cls.variants)))
        return next(iter(cls.variants.values()))

    @classmethod
    def placeholder(cls) -> "Block":
        """A block that stands for one that cannot be read."""
        kind = next(iter(cls.variants.values())) if cls.selector and cls not in cls.variants.values() else cls
        needed = {key: entry.type for key, entry in block_fields(kind).items() if default_of(entry) is MISSING}
        values = {key: placeholder(hint) for key, hint in needed.items()}
        return kind(**values)  # type: ignore[arg-type]  # each is of its field's type

    @classmethod
    def take_unknown(
        cls, key: str, value: JsonValue, prefix: str, parsed: dict[str, object], faults: list[str]
    ) -> bool:
        """Whether this block keeps a key that is no field; it is then in `parsed`."""
        return False

    @classmethod
    def unknown_key(cls, key: str, prefix: str, values: JsonBlock) -> UnknownKeyFault:
        """The fault of a key that is no field here."""
        kind = values.get("kind")
        legal = [name for name, entry in block_fields(cls).items() if applies(entry, (kind,) if kind else ())]
        near = get_close_matches(key, legal, 1)
        where = f"{prefix}{key}" if prefix else f"'{key}'"
        if (answer := answer_other_name(f"{prefix}{key}", str(values.get(key)))) is not None:
            return UnknownKeyFault(where, answer)
        if near:
            return UnknownKeyFault(where, translate("did you mean '{name}'?", name=near[0]))
        choices = translate("there are {names}", names=", ".join(legal))
        return UnknownKeyFault(where, choices if prefix else translate("see --help"))

    def inapplicable_keys(self) -> list[str]:
        """The keys it was read from that belong to other kinds of this block."""
        known = block_fields(type(self))
        return [key for key in self.key_order if key in known and not applies(known[key], self.chosen_kinds())]

    def chosen_kinds(self) -> Sequence[str]:
        """The kinds that this block is of; empty where it has none."""
        kind = getattr(self, "kind", None)
        return (kind,) if kind is not None else ()

    def as_dict(self) -> dict[str, JsonValue]:
        """The block as plain values: the keys it was read from in their order, then what was changed since."""
        known = block_fields(type(self))
        order = [key for key in self.key_order if key in known] or list(known)
        order += [key for key in known if key not in order and getattr(self, key) != default_of(known[key])]
        order = [key for key in order if applies(known[key], self.chosen_kinds())]
        values = {key: plain(getattr(self, key)) for key in order}
        nulls = [key for key in self.null_keys if key in values and getattr(self, key) == default_of(known[key])]
        return values | dict.fromkeys(nulls)


def block_fields(kind: type[Block]) -> dict[str, "Field[object]"]:
    """The settings of a block by name, those of its base classes first."""
    return {entry.name: entry for entry in fields(kind) if entry.name not in ("key_order", "null_keys")}


def plain(value: object) -> JsonValue:
    """A value of a block as it is written to a yaml file."""
    if isinstance(value, Block):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return cast(JsonValue, value)


def default_of(entry: "Field[object]") -> object:
    """The default of a field; `MISSING` where it has none."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def applies(entry: "Field[object]", kinds: Sequence[object]) -> bool:
    """Whether a block of these kinds has this field: one of them is enough."""
    limits = [note for note in get_args(entry.type)[1:] if isinstance(note, OnlyFor)]
    return not kinds or all(any(kind in limit.kinds for kind in kinds) for limit in limits)


def convert(hint: object, value: JsonValue, name: str, faults: list[str], default: object = MISSING) -> object:
    """A value as its annotation has it; None where it cannot be, which is added to `faults`.

    An integer may stand where a float is declared, and stays one, so that a config is written as it was read.
    """
    base, notes = unwrap(hint)
    if value == NOT_SET:
        faults.append(missing_fault(name, hint))
        return None
    if value is None:
        if any(isinstance(note, NullIsDefault) for note in notes):
            return default
        if not accepts_null(base):
            known = default is not MISSING and not isinstance(default, Block)
            faults.append(
                translate("{name}=null: it needs a value, such as {value}", name=name, value=yaml_text(plain(default)))
                if known
                else translate("{name}=null: it needs a value", name=name)
            )
        return None
    if base is JsonValue:
        return value
    own, options = list[str](), options_of(base)
    if any(isinstance(note, OrTarget) for note in notes):
        options = [option for option in options if (option is str) == ("." in str(value))]
    # the type of the value first: 1.0 of `int | float` is a share, 1 a count
    for option in sorted(options, key=lambda option: option is not type(value)):
        own.clear()
        converted = convert_one(option, value, name, own)
        if not own:
            break
    legal = [choice for option in options for choice in literals(option)]
    if own and legal and not isinstance(value, Mapping | list | tuple):
        own = [choice_fault(name, value, legal)]
    faults.extend(own)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        faults.extend(fault for note in notes if isinstance(note, Range) and (fault := note.fault(name, converted)))
    return converted


def convert_one(hint: object, value: JsonValue, name: str, faults: list[str]) -> object:
    """A value that is not null as an annotation without alternatives has it; None where it cannot be."""
    if hint is bool:
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        faults.append(translate("{name}={value} is neither true nor false", name=name, value=yaml_text(value)))
    elif hint is int or hint is float:
        return convert_number(hint is int, value, name, faults)
    elif hint is str:
        if not isinstance(value, Mapping | list | tuple):
            return str(value)
        faults.append(translate("{name}={value} is no text", name=name, value=yaml_text(value)))
    elif get_origin(hint) is Literal:
        legal = get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in legal):
            faults.append(choice_fault(name, value, legal))
            return None
        return value
    elif isinstance(hint, type) and issubclass(hint, Block):
        if isinstance(value, Mapping):
            return hint.parse(value, name, faults)
        faults.append(translate("{name}={value} is no block of settings", name=name, value=yaml_text(value)))
    elif get_origin(hint) is Sequence:
        if isinstance(value, list | tuple):
            [inner] = get_args(hint)
            return [convert(inner, entry, name, faults) for entry in value]
        faults.append(translate("{name}={value} is no list; write [{value}]", name=name, value=yaml_text(value)))
    elif get_origin(hint) is Mapping:
        if isinstance(value, Mapping):
            _, inner = get_args(hint)
            return {str(key): convert(inner, entry, f"{name}.{key}", faults) for key, entry in value.items()}
        faults.append(
            translate("{name}={value} is no mapping; write {{name: value}}", name=name, value=yaml_text(value))
        )
    else:
        raise TypeError(translate("{name}: a config cannot hold {hint}", name=name, hint=hint))
    return None


def convert_number(whole: bool, value: JsonValue, name: str, faults: list[str]) -> int | float | None:
    """A number, also from a text such as "1e-3"; None where it is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = int(value) if value.lstrip("-").isdigit() else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        faults.append(translate("{name}={value} is not a number", name=name, value=yaml_text(value)))
    elif whole and value != int(value):
        faults.append(translate("{name}={value} counts, so it must be a whole number", name=name, value=value))
    else:
        return int(value) if whole else value
    return None


def unwrap(hint: object) -> tuple[object, tuple[object, ...]]:
    """An annotation without `Annotated`, and the notes in it."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        return base, tuple(notes)
    return hint, ()


def options_of(hint: object) -> list[object]:
    """The alternatives of an annotation, without None."""
    if get_origin(hint) in (Union, UnionType):
        return [option for option in get_args(hint) if option is not NoneType]
    return [hint]


def accepts_null(hint: object) -> bool:
    """Whether None is one of the alternatives."""
    return hint is JsonValue or (get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint))


def literals(hint: object) -> tuple[JsonValue, ...]:
    """The choices of a `Literal`; none for any other annotation."""
    return get_args(hint) if get_origin(hint) is Literal else ()


def choice_fault(name: str, value: object, legal: Sequence[JsonValue]) -> str:
    """The fault of a value that is none of the choices."""
    texts = [yaml_text(choice) for choice in legal]
    near = get_close_matches(yaml_text(value), texts, 1)
    guess = translate("did you mean '{name}'?", name=near[0]) if near else ""
    hint = guess or translate("choose one of {names}", names=", ".join(texts))
    return translate("{name}={value} is unknown; {hint}", name=name, value=yaml_text(value), hint=hint)


def placeholder(hint: object) -> object:
    """A value of the annotated type."""
    base = options_of(unwrap(hint)[0])[0]
    if isinstance(base, type) and issubclass(base, Block):
        return base.placeholder()
    if base in (int, float, bool, str):
        return base()
    return next(iter(literals(base)), None)


def missing_fault(name: str, hint: object = None) -> str:
    """The fault of a setting that has no value and no default."""
    advice = next((note.advice for note in unwrap(hint)[1] if isinstance(note, IfMissing)), "")
    if advice:
        way_out = translate(advice).format(name=name)
        return translate("{name} is not set; {advice}", name=name, advice=way_out)
    return translate("{name} is not set and has no default; give {name}=VALUE", name=name)


def yaml_text(value: object) -> str:
    """A value as one writes it on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_text(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(yaml_text, value)) + "]"
    return str(value)
