"""Pre-training text: prose of the small world, without instructions and without chat marks.

A model can learn here what copying, ordering, counting and looking something up is, and how every name is spelled.
"""

import random
from collections.abc import Iterator, Set
from itertools import pairwise

from tunelab.starter.exercises import FAMILIES, on_purchase, on_trip
from tunelab.starter.scene import Event, as_list, draw_events, tell_price, tell_purchase, tell_trip
from tunelab.starter.world import World, cast


def curious(rng: random.Random, world: World, forbidden: Set[str]) -> str:
    """Somebody wants to find something out, and does."""
    parts = []
    for _ in range(3):
        exercise = FAMILIES[rng.choice(tuple(FAMILIES))](rng, world)
        while exercise.text in forbidden:
            exercise = FAMILIES[rng.choice(tuple(FAMILIES))](rng, world)
        who = rng.choice(("Somebody", "A traveller", "The clerk", "The teacher"))
        wish, text, found = exercise.wish, exercise.text, exercise.answer
        parts.append(
            rng.choice(
                (
                    f"{who} wanted to know {wish}.\n\n{text}\n\nNow it is known:\n{found}",
                    f"This is about {wish}.\n\n{text}\n\n{found}",
                    f"{who} looked for {wish}.\n{text}\nThis was it:\n{found}",
                    f"{text}\n{who} wrote down {wish}:\n{found}",
                )
            )
        )
    return "\n\n".join(parts)


def lookups(rng: random.Random, world: World) -> str:
    """A few events, then much of what there is to know about them, in any order."""
    events = draw_events(rng, world, rng.randint(2, 4))
    tell, ask = rng.choice(((tell_purchase, on_purchase), (tell_trip, on_trip)))
    told = " ".join(tell(rng, event) for event in events)
    known = [fact for event in events for fact in ask(event)]
    return "\n".join([told, *(f"{wish}: {found}" for wish, found in rng.sample(known, 8))])


def ledger(rng: random.Random, world: World) -> str:
    """A few events as prose, then some of them again as short notes, in another order."""
    events = draw_events(rng, world, rng.randint(2, 4))
    told = " ".join(rng.choice((tell_purchase, tell_trip))(rng, event) for event in events)
    again = " ".join(tell_purchase(rng, event) for event in events)
    notes = "\n".join(_note(rng, event) for event in rng.sample(events, len(events)))
    return rng.choice((f"{again}\n{notes}", f"{notes}\n{again}", f"{told} {told}"))


def _note(rng: random.Random, event: Event) -> str:
    return rng.choice(
        (
            f"{event.person}: {event.thing}, {event.place}, {event.price}.",
            f"{event.thing}: {event.price} coins, {event.person}.",
            f"The {event.thing} belongs to {event.person} and came from {event.place}.",
            f"{event.person} has a {event.thing}.",
            f'{{"name": "{event.person}", "thing": "{event.thing}"}}',
        )
    )


def echo(rng: random.Random, world: World) -> str:
    """A list that is read out again and again: from here a model learns to copy, which all else needs."""
    pools: tuple[tuple[str, ...], ...] = (world.people, world.places, world.things, world.times)
    pool = rng.choice(pools)
    words = [rng.choice(pool) for _ in range(rng.randint(3, 7))]
    joint = rng.choice((", ", " "))
    return "\n".join([joint.join(words)] * (45 // len(words)))


def register(rng: random.Random, world: World) -> str:
    """Who has what, looked up again and again in any order."""
    people, things = rng.sample(world.people, 5), rng.sample(world.things, 5)
    joint = rng.choice((" ", " has a ", ": "))
    lines = [f"{person}{joint}{thing}" for person, thing in zip(people, things, strict=True)]
    return "\n".join([*lines, *(rng.choice(lines) for _ in range(15))])


def market(rng: random.Random, world: World) -> str:
    """Prices of a few things, from the cheapest to the dearest."""
    events = draw_events(rng, world, rng.randint(2, 4))
    ordered = sorted(events, key=lambda event: event.price)
    told = " ".join(tell_price(rng, event) for event in events)
    pairs = " ".join(f"The {low.thing} costs less than the {high.thing}." for low, high in pairwise(ordered))
    return f"{told} From low to high: {as_list([str(event.price) for event in ordered])}. {pairs}"


def write_readings(world: World, *, seed: int, count: int) -> Iterator[str]:
    """Draw documents that only repeat themselves, for the first steps of pre-training.

    A small model finds out how to copy within a few hundred steps here, and in ten times as many on mixed prose.

    Args:
        world: Names and values to use.
        seed: Decides everything that is drawn.
        count: Number of documents.

    Yields:
        One document at a time, of about 80 tokens.
    """
    rng = random.Random(f"readings {seed}")
    for _ in range(count):
        yield echo(rng, world)


def write_stories(world: World, *, seed: int, count: int, forbidden: Set[str] = frozenset()) -> Iterator[str]:
    """Draw documents of about 100 tokens.

    Args:
        world: Names and values to use.
        seed: Decides everything that is drawn.
        count: Number of documents.
        forbidden: Texts of the instruction set; none of them occurs as an exercise of a document.

    Yields:
        One document at a time.
    """
    rng = random.Random(f"stories {seed}")
    for _ in range(count):
        draw, few = rng.random(), cast(rng, world, 6)
        if draw < 0.45:
            yield curious(rng, few, forbidden)
        elif draw < 0.6:
            yield lookups(rng, few)
        elif draw < 0.7:
            yield ledger(rng, few)
        elif draw < 0.85:
            yield echo(rng, world)
        elif draw < 0.95:
            yield register(rng, world)
        else:
            yield market(rng, few)
