"""The two built-in corpora: the instruction set, and prose for pre-training without instructions or chat marks.

From the prose a model can learn what copying, ordering, counting and looking something up is, and how every name is
spelled.
"""

import random
from collections.abc import Iterator, Set
from itertools import pairwise

from tunelab.starter.exercises import FAMILIES, INSTRUCTION_FAMILIES, purchase_facts, trip_facts
from tunelab.starter.world import (
    SPLITS,
    Event,
    World,
    comma_list,
    draw_events,
    price_sentence,
    purchase_sentence,
    sample_world,
    split_world,
    trip_sentence,
)

RECORDS_PER_SPLIT = {"train": 3200, "validation": 400, "test": 400}


def draw_instructions(seed: int) -> dict[str, list[dict[str, str]]]:
    """Draw the three splits.

    Every family is equally frequent, no text occurs twice, and no two splits share a name or a value.

    Args:
        seed: Decides everything that is drawn.

    Returns:
        Records per split, in shuffled order.
    """
    worlds = split_world(seed)
    seen: set[str] = set()
    splits: dict[str, list[dict[str, str]]] = {}
    for split in SPLITS:
        rng = random.Random(f"instructions {seed} {split}")
        records: list[dict[str, str]] = []
        for family, draw in INSTRUCTION_FAMILIES.items():
            target = len(records) + RECORDS_PER_SPLIT[split] // len(INSTRUCTION_FAMILIES)
            while len(records) < target:
                exercise = draw(rng, worlds[split])
                if exercise.passage in seen:
                    continue
                seen.add(exercise.passage)
                records.append(
                    {
                        "instruction": exercise.instruction,
                        "input": exercise.passage,
                        "output": exercise.answer,
                        "family": family,
                    }
                )
        rng.shuffle(records)
        splits[split] = records
    return splits


def question_document(rng: random.Random, world: World, forbidden: Set[str]) -> str:
    """Somebody wants to find something out, and does."""
    parts = []
    for _ in range(3):
        exercise = FAMILIES[rng.choice(tuple(FAMILIES))](rng, world)
        while exercise.passage in forbidden:
            exercise = FAMILIES[rng.choice(tuple(FAMILIES))](rng, world)
        who = rng.choice(("Somebody", "A traveller", "The clerk", "The teacher"))
        clause, passage, answer = exercise.clause, exercise.passage, exercise.answer
        parts.append(
            rng.choice(
                (
                    f"{who} wanted to know {clause}.\n\n{passage}\n\nNow it is known:\n{answer}",
                    f"This is about {clause}.\n\n{passage}\n\n{answer}",
                    f"{who} looked for {clause}.\n{passage}\nThis was it:\n{answer}",
                    f"{passage}\n{who} wrote down {clause}:\n{answer}",
                )
            )
        )
    return "\n\n".join(parts)


def lookup_document(rng: random.Random, world: World) -> str:
    """A few events, then much of what there is to know about them, in any order."""
    events = draw_events(rng, world, rng.randint(2, 4))
    tell, ask = rng.choice(((purchase_sentence, purchase_facts), (trip_sentence, trip_facts)))
    story = " ".join(tell(rng, event) for event in events)
    known = [fact for event in events for fact in ask(event)]
    return "\n".join([story, *(f"{clause}: {answer}" for clause, answer in rng.sample(known, 8))])


def ledger_document(rng: random.Random, world: World) -> str:
    """A few events as prose, then some of them again as short notes, in another order."""
    events = draw_events(rng, world, rng.randint(2, 4))
    story = " ".join(rng.choice((purchase_sentence, trip_sentence))(rng, event) for event in events)
    again = " ".join(purchase_sentence(rng, event) for event in events)
    notes = "\n".join(_ledger_note(rng, event) for event in rng.sample(events, len(events)))
    return rng.choice((f"{again}\n{notes}", f"{notes}\n{again}", f"{story} {story}"))


def _ledger_note(rng: random.Random, event: Event) -> str:
    return rng.choice(
        (
            f"{event.person}: {event.thing}, {event.place}, {event.price}.",
            f"{event.thing}: {event.price} coins, {event.person}.",
            f"The {event.thing} belongs to {event.person} and came from {event.place}.",
            f"{event.person} has a {event.thing}.",
            f'{{"name": "{event.person}", "thing": "{event.thing}"}}',
        )
    )


def repetition_document(rng: random.Random, world: World) -> str:
    """A list that is read out again and again: from here a model learns to copy, which all else needs."""
    pools: tuple[tuple[str, ...], ...] = (world.people, world.places, world.things, world.times)
    pool = rng.choice(pools)
    words = [rng.choice(pool) for _ in range(rng.randint(3, 7))]
    joint = rng.choice((", ", " "))
    return "\n".join([joint.join(words)] * (45 // len(words)))


def register_document(rng: random.Random, world: World) -> str:
    """A list of who has what, with lines repeated in any order."""
    people, things = rng.sample(world.people, 5), rng.sample(world.things, 5)
    joint = rng.choice((" ", " has a ", ": "))
    lines = [f"{person}{joint}{thing}" for person, thing in zip(people, things, strict=True)]
    return "\n".join([*lines, *(rng.choice(lines) for _ in range(15))])


def market_document(rng: random.Random, world: World) -> str:
    """Prices of a few things, from the cheapest to the dearest."""
    events = draw_events(rng, world, rng.randint(2, 4))
    ordered = sorted(events, key=lambda event: event.price)
    story = " ".join(price_sentence(rng, event) for event in events)
    pairs = " ".join(f"The {low.thing} costs less than the {high.thing}." for low, high in pairwise(ordered))
    return f"{story} From low to high: {comma_list([str(event.price) for event in ordered])}. {pairs}"


def draw_repetitions(world: World, *, seed: int, count: int) -> Iterator[str]:
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
        yield repetition_document(rng, world)


def draw_documents(world: World, *, seed: int, count: int, forbidden: Set[str] = frozenset()) -> Iterator[str]:
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
        draw, few = rng.random(), sample_world(rng, world, 6)
        if draw < 0.45:
            yield question_document(rng, few, forbidden)
        elif draw < 0.6:
            yield lookup_document(rng, few)
        elif draw < 0.7:
            yield ledger_document(rng, few)
        elif draw < 0.85:
            yield repetition_document(rng, world)
        elif draw < 0.95:
            yield register_document(rng, world)
        else:
            yield market_document(rng, few)
