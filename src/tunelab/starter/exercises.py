"""Ten families of small exercises: a text, what is asked about it, and the one right answer.

An exercise is told twice: as an instruction record (`instructions.py`) and as prose for pre-training (`stories.py`).
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tunelab.starter.scene import Event, as_list, draw_events, tell_price, tell_purchase, tell_trip
from tunelab.starter.world import MOODS, NUMBER_WORDS, World


@dataclass(frozen=True, slots=True)
class Exercise:
    """Something to find out about a text.

    Attributes:
        asked: The wish as an instruction, "Who bought the lamp?".
        wish: The same wish inside a sentence, "who bought the lamp".
        text: What the answer has to be read from.
        answer: The only right answer.
    """

    asked: str
    wish: str
    text: str
    answer: str


def extract(rng: random.Random, world: World) -> Exercise:
    """Read one value out of a record of purchases."""
    events = draw_events(rng, world, 3)
    text = " ".join(tell_purchase(rng, event) for event in events)
    wish, found = rng.choice(on_purchase(rng.choice(events)))
    return Exercise(f"Extract {wish}.", wish, text, found)


def on_purchase(event: Event) -> tuple[tuple[str, str], ...]:
    """What can be asked about a purchase, each with its answer."""
    return (
        (f"the buyer of the {event.thing}", event.person),
        (f"the price of the {event.thing}", f"{event.price} coins"),
        (f"the town where {event.person} was", event.place),
        (f"the purchase of {event.person}", f"a {event.thing}"),
    )


def on_trip(event: Event) -> tuple[tuple[str, str], ...]:
    """What can be asked about a trip, each with its answer."""
    return (
        (f"who went to {event.place}", event.person),
        (f"when {event.person} left", f"at {event.time}"),
        (f"where {event.person} went", f"to {event.place}"),
        (f"who left at {event.time}", event.person),
    )


def answer(rng: random.Random, world: World) -> Exercise:
    """Answer a question about trips."""
    events = draw_events(rng, world, 3)
    text = " ".join(tell_trip(rng, event) for event in events)
    wish, said = rng.choice(on_trip(rng.choice(events)))
    return Exercise(f"Tell {wish}.", wish, text, said)


def count(rng: random.Random, world: World) -> Exercise:
    """Count the entries of a list."""
    many = rng.randint(2, 6)
    kind, pool = rng.choice((("things", world.things), ("people", world.people), ("towns", world.places)))
    return Exercise(
        f"How many {kind} are on the list?",
        f"how many {kind} were on the list",
        f"The list: {as_list(rng.sample(pool, many))}.",
        NUMBER_WORDS[many],
    )


def sort(rng: random.Random, world: World) -> Exercise:
    """Put prices or times in order."""
    if rng.random() < 0.5:
        values = [str(price) for price in rng.sample(world.prices, 3)]
        up, kind, words = rng.random() < 0.5, "prices", ("low to high", "high to low")
    else:
        values = rng.sample(world.times, 3)
        up, kind, words = rng.random() < 0.5, "times", ("early to late", "late to early")
    order = words[0] if up else words[1]
    ordered = sorted(values, reverse=not up)  # all prices have two digits and all times one for the hour
    return Exercise(
        f"Sort the {kind} from {order}.",
        f"the {kind} from {order}",
        f"The {kind}: {as_list(values)}.",
        as_list(ordered),
    )


def mood(rng: random.Random, world: World) -> Exercise:
    """Name the mood that shows in what somebody does."""
    feeling = rng.choice(tuple(MOODS))
    one = draw_events(rng, world, 1)[0]
    before = rng.choice((tell_trip(rng, one), tell_purchase(rng, one), f"{one.person} lost a {one.thing}."))
    asked, wish = rng.choice(
        (
            (f"What is the mood of {one.person}?", f"the mood of {one.person}"),
            (f"How does {one.person} feel?", f"how {one.person} felt"),
        )
    )
    return Exercise(asked, wish, f"{before} Then {one.person} {rng.choice(MOODS[feeling])}.", feeling)


def rewrite(rng: random.Random, world: World) -> Exercise:
    """Say a sentence again with another part of it in front."""
    one = draw_events(rng, world, 1)[0]
    went, bought = f"{one.person} went to {one.place}", f"{one.person} bought a {one.thing}"
    cost = f"{one.price} coins"
    asked, wish, text, said = rng.choice(
        (
            ("the time", "with the time in front", f"{went} at {one.time}.", f"At {one.time}, {went}."),
            ("the town", "with the town in front", f"{bought} in {one.place}.", f"In {one.place}, {bought}."),
            ("the price", "with the price in front", f"{bought} for {cost}.", f"For {cost}, {bought}."),
        )
    )
    return Exercise(f"Rewrite the sentence with {asked} in front.", f"the sentence {wish}", text, said)


def compare(rng: random.Random, world: World) -> Exercise:
    """Say which of two is more, less, earlier or later."""
    pair = draw_events(rng, world, 2)
    if rng.random() < 0.5:
        word = rng.choice(("more", "less"))
        chosen = max(pair, key=_price) if word == "more" else min(pair, key=_price)
        text = " ".join(tell_price(rng, event) for event in pair)
        return Exercise(f"Which thing costs {word}?", f"which thing cost {word}", text, f"the {chosen.thing}")
    word = rng.choice(("earlier", "later"))
    chosen = max(pair, key=_time) if word == "later" else min(pair, key=_time)
    text = " ".join(tell_trip(rng, event) for event in pair)
    return Exercise(f"Who left {word}?", f"who left {word}", text, chosen.person)


def _price(event: Event) -> int:
    return event.price


def _time(event: Event) -> str:
    return event.time  # one digit for the hour, so the order of the letters is the order of the day


def as_json(rng: random.Random, world: World) -> Exercise:
    """Write a sentence down as a JSON object."""
    one = draw_events(rng, world, 1)[0]
    told, note = rng.choice(
        (
            (tell_trip(rng, one), {"name": one.person, "town": one.place, "time": one.time}),
            (
                tell_purchase(rng, one),
                {"name": one.person, "thing": one.thing, "town": one.place, "price": one.price},
            ),
        )
    )
    keys = as_list(list(note))
    wish = f"the sentence as JSON with {keys}"
    return Exercise(f"Format {wish}.", wish, told, json.dumps(note))


def names(rng: random.Random, world: World) -> Exercise:
    """List the people or the towns of a text, in the order of the text."""
    events = draw_events(rng, world, rng.randint(2, 3))
    text = " ".join(tell_trip(rng, event) for event in events)
    kind, listed = rng.choice(
        (("people", [event.person for event in events]), ("towns", [event.place for event in events]))
    )
    return Exercise(f"List the {kind}.", f"the {kind}", text, as_list(listed))


def pick(rng: random.Random, world: World) -> Exercise:
    """Name the entry at one end of a list."""
    kind, pool = rng.choice((("person", world.people), ("town", world.places)))
    listed = rng.sample(pool, rng.randint(3, 5))
    where, said = rng.choice((("first", listed[0]), ("second", listed[1]), ("last", listed[-1])))
    asked, wish = f"Which {kind} is {where} on the list?", f"which {kind} was {where} on the list"
    return Exercise(asked, wish, f"The list: {as_list(listed)}.", said)


FAMILIES: dict[str, Callable[[random.Random, World], Exercise]] = {
    "extract": extract,
    "answer": answer,
    "count": count,
    "sort": sort,
    "mood": mood,
    "rewrite": rewrite,
    "compare": compare,
    "json": as_json,
    "names": names,
    "pick": pick,
}
