"""Eight families of small exercises: a text, a question about it, and the one right answer.

Each exercise is written twice: as an instruction record and as prose for pre-training (`corpora.py`).
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from tunelab.starter.world import (
    MOODS,
    NUMBER_WORDS,
    Event,
    World,
    comma_list,
    draw_events,
    purchase_sentence,
    trip_sentence,
)


@dataclass(frozen=True, slots=True)
class Exercise:
    """Something to find out about a text.

    Attributes:
        instruction: The wish as an instruction, "Who bought the lamp?".
        clause: The same wish inside a sentence, "who bought the lamp".
        passage: What the answer has to be read from.
        answer: The only right answer.
    """

    instruction: str
    clause: str
    passage: str
    answer: str


def extraction_exercise(rng: random.Random, world: World) -> Exercise:
    """Read one value out of the record of a purchase."""
    one = draw_events(rng, world, 1)[0]
    clause, answer = rng.choice(
        (
            ("the buyer", one.person),
            ("the price", f"{one.price} coins"),
            ("the town", one.place),
            ("the thing", f"a {one.thing}"),
        )
    )
    return Exercise(f"Extract {clause}.", clause, purchase_sentence(rng, one), answer)


def purchase_facts(event: Event) -> tuple[tuple[str, str], ...]:
    """Questions about a purchase, each with its answer."""
    return (
        (f"the buyer of the {event.thing}", event.person),
        (f"the price of the {event.thing}", f"{event.price} coins"),
        (f"the town where {event.person} was", event.place),
        (f"the purchase of {event.person}", f"a {event.thing}"),
    )


def trip_facts(event: Event) -> tuple[tuple[str, str], ...]:
    """Questions about a trip, each with its answer."""
    return (
        (f"who went to {event.place}", event.person),
        (f"when {event.person} left", f"at {event.time}"),
        (f"where {event.person} went", f"to {event.place}"),
        (f"who left at {event.time}", event.person),
    )


def passage_exercise(rng: random.Random, world: World) -> Exercise:
    """Answer a question about a passage: somebody travels, somebody else buys."""
    trip, purchase = draw_events(rng, world, 2)
    sentences = [trip_sentence(rng, trip), purchase_sentence(rng, purchase)]
    clause, answer = rng.choice((*trip_facts(trip), (f"who bought the {purchase.thing}", purchase.person)))
    return Exercise(f"Tell {clause}.", clause, " ".join(rng.sample(sentences, 2)), answer)


def counting_exercise(rng: random.Random, world: World) -> Exercise:
    """Count the entries of a list."""
    many = rng.randint(2, 6)
    kind, pool = rng.choice((("things", world.things), ("people", world.people), ("towns", world.places)))
    return Exercise(
        f"How many {kind} are on the list?",
        f"how many {kind} were on the list",
        f"The list: {comma_list(rng.sample(pool, many))}.",
        NUMBER_WORDS[many],
    )


def sorting_exercise(rng: random.Random, world: World) -> Exercise:
    """Put number words in order."""
    values = rng.sample(range(1, len(NUMBER_WORDS)), 3)
    order = rng.choice(("low to high", "high to low"))
    ordered = sorted(values, reverse=order == "high to low")
    kind = rng.choice(("numbers", "rolls", "points", "scores"))
    return Exercise(
        f"Sort the {kind} from {order}.",
        f"the {kind} from {order}",
        f"The {kind}: {comma_list([NUMBER_WORDS[value] for value in values])}.",
        comma_list([NUMBER_WORDS[value] for value in ordered]),
    )


def mood_exercise(rng: random.Random, world: World) -> Exercise:
    """Name the mood that shows in what somebody does."""
    feeling = rng.choice(tuple(MOODS))
    one = draw_events(rng, world, 1)[0]
    before = rng.choice((trip_sentence(rng, one), purchase_sentence(rng, one), f"{one.person} lost a {one.thing}."))
    question, clause = rng.choice(
        (
            (f"What is the mood of {one.person}?", f"the mood of {one.person}"),
            (f"How does {one.person} feel?", f"how {one.person} felt"),
        )
    )
    return Exercise(question, clause, f"{before} Then {one.person} {rng.choice(MOODS[feeling])}.", feeling)


def rewriting_exercise(rng: random.Random, world: World) -> Exercise:
    """Say a sentence again with another part of it in front."""
    one = draw_events(rng, world, 1)[0]
    went, bought = f"{one.person} went to {one.place}", f"{one.person} bought a {one.thing}"
    cost = f"{one.price} coins"
    part, clause, passage, answer = rng.choice(
        (
            ("the time", "with the time in front", f"{went} at {one.time}.", f"At {one.time}, {went}."),
            ("the town", "with the town in front", f"{bought} in {one.place}.", f"In {one.place}, {bought}."),
            ("the price", "with the price in front", f"{bought} for {cost}.", f"For {cost}, {bought}."),
        )
    )
    return Exercise(f"Rewrite the sentence with {part} in front.", f"the sentence {clause}", passage, answer)


def comparison_exercise(rng: random.Random, world: World) -> Exercise:
    """Say which of two people paid more, or less."""
    people, paid, word, text = _draw_payments(rng, world)
    return Exercise(f"Who paid {word}?", f"who paid {word}", text, people[paid.index(_extreme(paid, word))])


def amount_exercise(rng: random.Random, world: World) -> Exercise:
    """Say which of two amounts is more, or less."""
    _, paid, word, text = _draw_payments(rng, world)
    return Exercise(f"Which amount is {word}?", f"which amount was {word}", text, _coins_text(_extreme(paid, word)))


def _draw_payments(rng: random.Random, world: World) -> tuple[list[str], list[int], str, str]:
    """Two people, what each paid, "more" or "less", and the sentences that tell it."""
    people, paid = rng.sample(world.people, 2), rng.sample(range(1, len(NUMBER_WORDS)), 2)
    word = rng.choice(("more", "less"))
    return (
        people,
        paid,
        word,
        " ".join(f"{who} paid {_coins_text(coins)}." for who, coins in zip(people, paid, strict=True)),
    )


def _extreme(paid: list[int], word: str) -> int:
    return max(paid) if word == "more" else min(paid)


def _coins_text(many: int) -> str:
    return f"{NUMBER_WORDS[many]} coin{'s' if many > 1 else ''}"


def json_exercise(rng: random.Random, world: World) -> Exercise:
    """Write a sentence down as a JSON object."""
    one = draw_events(rng, world, 1)[0]
    sentence, note = rng.choice(
        (
            (trip_sentence(rng, one), {"name": one.person, "town": one.place, "time": one.time}),
            (purchase_sentence(rng, one), {"name": one.person, "thing": one.thing, "price": one.price}),
        )
    )
    keys = comma_list(list(note))
    clause = f"the sentence as JSON with {keys}"
    return Exercise(f"Format {clause}.", clause, sentence, json.dumps(note))


FAMILIES: dict[str, Callable[[random.Random, World], Exercise]] = {
    "extract": extraction_exercise,
    "answer": passage_exercise,
    "count": counting_exercise,
    "sort": sorting_exercise,
    "mood": mood_exercise,
    "rewrite": rewriting_exercise,
    "compare": comparison_exercise,
    "json": json_exercise,
}

# As the instruction set asks them: of two payments it wants the amount, which prose leaves to the one who paid.
INSTRUCTION_FAMILIES = {**FAMILIES, "compare": amount_exercise}
