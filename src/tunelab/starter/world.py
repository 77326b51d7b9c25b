"""The small world of the built-in texts: its names and values, how splits share them out, and sentences for its events.

Nothing here comes from a data set: first names and place names are put together from syllables, things are plain
nouns, prices and times are counted out.  Each split of the instruction set owns names and values of its own, so that a
right answer about the test split has to be read from the text and cannot be remembered.
"""

import random
from dataclasses import dataclass, fields
from itertools import product

SPLITS = ("train", "validation", "test")
SHARES = {"validation": 0.15, "test": 0.2}  # of the names and values; train owns the rest

MOODS: dict[str, tuple[str, ...]] = {
    "happy": ("laughed out loud", "danced in the street", "sang a merry song", "smiled all day", "clapped and cheered"),
    "sad": ("wept all night", "sighed and cried", "mourned in silence", "wiped away a tear", "felt a heavy heart"),
    "angry": ("shouted at the wall", "slammed the gate", "stamped and growled", "broke a window", "cursed the day"),
    "calm": ("rested by the fire", "breathed slowly", "sat quietly", "watched the clouds drift", "slept in peace"),
    "afraid": ("trembled and hid", "ran from the shadow", "shivered with fright", "screamed for help", "fled in dread"),
}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_FIRST = "Bel Cor Dan Fen Gal Hal Jor Kel Lor Mar Nel Per Ros Sel Tal Ven Wil Yor Zan Tor"
_LAST = "a an ena ia in ik o on ra us wyn"
_PLACE_FIRST = "Ash Black Bright Clay Deep Elm Fox Green High Iron Long Oak Red Stone West"
_PLACE_LAST = "bury field ford gate ham mill port wick"
_THINGS = (
    "barrel basket bell belt blanket boat book boot bottle bowl box bracelet broom brush bucket button cake "
    "candle cart chair chest clock cloak coat comb crown cup curtain desk doll door drum fan flag flute fork "
    "glove hammer hat helmet jar jug kettle key kite knife ladder lamp lantern lock map mask mirror mug nail "
    "necklace needle pan pen pillow pipe plate pot purse ring rope rug saddle scarf shawl shirt shoe shovel spoon "
    "stool sword table tent torch towel trunk vase wagon wheel whistle"
)


@dataclass(frozen=True, slots=True)
class World:
    """Names and values a text may use.

    Attributes:
        people: First names.
        places: Names of towns.
        things: Nouns that take the article "a".
        prices: Whole coins, from 10 to 99.
        times: Times of day such as "7:25", from 1:00 to 9:55.
    """

    people: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]
    prices: tuple[int, ...]
    times: tuple[str, ...]


def whole_world() -> World:
    """All names and values there are."""
    return World(
        people=tuple(first + last for first, last in product(_FIRST.split(), _LAST.split())),
        places=tuple(first + last for first, last in product(_PLACE_FIRST.split(), _PLACE_LAST.split())),
        things=tuple(_THINGS.split()),
        prices=tuple(range(10, 100)),
        times=tuple(f"{hour}:{minute:02d}" for hour, minute in product(range(1, 10), range(0, 60, 5))),
    )


def sample_world(rng: random.Random, world: World, size: int) -> World:
    """A few names and values of a world, for a text in which they come back again and again."""
    return World(**{field.name: tuple(rng.sample(getattr(world, field.name), size)) for field in fields(World)})


def split_world(seed: int) -> dict[str, World]:
    """Deal every name and value to exactly one split.

    Args:
        seed: Decides who gets what.

    Returns:
        One world per name in `SPLITS`; no two of them share a name or a value.
    """
    rng = random.Random(f"share out {seed}")
    whole = whole_world()
    dealt: dict[str, dict[str, tuple[object, ...]]] = {split: {} for split in SPLITS}
    for field in fields(World):
        pool = list(getattr(whole, field.name))
        rng.shuffle(pool)
        for split, share in SHARES.items():
            taken = round(share * len(pool))
            dealt[split][field.name], pool = tuple(pool[:taken]), pool[taken:]
        dealt["train"][field.name] = tuple(pool)
    return {split: World(**pools) for split, pools in dealt.items()}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Event:
    """Somebody buys a thing somewhere for some coins, at some time of day."""

    person: str
    place: str
    thing: str
    price: int
    time: str


def draw_events(rng: random.Random, world: World, count: int) -> list[Event]:
    """Draw events that share nothing, so that every question about one of them has one answer."""
    columns = (world.people, world.places, world.things, world.prices, world.times)
    people, places, things, prices, times = (rng.sample(column, count) for column in columns)
    return [Event(*event) for event in zip(people, places, things, prices, times, strict=True)]  # type: ignore[arg-type]


def purchase_sentence(rng: random.Random, event: Event) -> str:
    """A sentence on who bought what, where, for how much."""
    return rng.choice(
        (
            f"{event.person} bought a {event.thing} in {event.place} for {event.price} coins.",
            f"In {event.place}, {event.person} bought a {event.thing} for {event.price} coins.",
            f"For {event.price} coins, {event.person} bought a {event.thing} in {event.place}.",
        )
    )


def trip_sentence(rng: random.Random, event: Event) -> str:
    """A sentence on who went where, and when."""
    return rng.choice(
        (
            f"{event.person} went to {event.place} at {event.time}.",
            f"At {event.time}, {event.person} went to {event.place}.",
        )
    )


def price_sentence(rng: random.Random, event: Event) -> str:
    """A sentence on what a thing costs."""
    return rng.choice(
        (
            f"The {event.thing} costs {event.price} coins.",
            f"For {event.price} coins you get the {event.thing}.",
        )
    )


def comma_list(words: list[str]) -> str:
    """Words with commas between them."""
    return ", ".join(words)
