"""What happens in the small world, drawn at random and told in sentences."""

import random
from dataclasses import dataclass

from tunelab.starter.world import World


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


def tell_purchase(rng: random.Random, event: Event) -> str:
    """A sentence on who bought what, where, for how much."""
    return rng.choice(
        (
            f"{event.person} bought a {event.thing} in {event.place} for {event.price} coins.",
            f"In {event.place}, {event.person} bought a {event.thing} for {event.price} coins.",
            f"For {event.price} coins, {event.person} bought a {event.thing} in {event.place}.",
        )
    )


def tell_trip(rng: random.Random, event: Event) -> str:
    """A sentence on who went where, and when."""
    return rng.choice(
        (
            f"{event.person} went to {event.place} at {event.time}.",
            f"At {event.time}, {event.person} went to {event.place}.",
        )
    )


def tell_price(rng: random.Random, event: Event) -> str:
    """A sentence on what a thing costs."""
    return rng.choice(
        (
            f"The {event.thing} costs {event.price} coins.",
            f"For {event.price} coins you get the {event.thing}.",
        )
    )


def as_list(words: list[str]) -> str:
    """Words with commas between them."""
    return ", ".join(words)
