"""The pools of names and values, and how they are dealt to the splits."""

from dataclasses import fields
from itertools import combinations

import pytest

from tunelab.starter.world import MOODS, SPLITS, World, split_world, whole_world


@pytest.mark.parametrize("seed", [0, 1, 2026])
def test_every_name_and_value_belongs_to_exactly_one_split(seed: int) -> None:
    dealt, whole = split_world(seed), whole_world()
    assert tuple(dealt) == SPLITS
    for field in fields(World):
        pools = [getattr(world, field.name) for world in dealt.values()]
        assert sorted(value for pool in pools for value in pool) == sorted(getattr(whole, field.name))
        for one, other in combinations(pools, 2):
            assert not set(one) & set(other)


def test_another_seed_deals_differently() -> None:
    assert split_world(1)["test"].people != split_world(2)["test"].people
    assert split_world(1) == split_world(1)


def test_no_name_is_hidden_inside_another_kind_of_name() -> None:
    whole = whole_world()
    everything = [*whole.people, *whole.places, *whole.things, *MOODS]
    assert len(everything) == len(set(everything))


def test_every_thing_takes_the_article_a() -> None:
    assert not [thing for thing in whole_world().things if thing[0] in "aeiou"]


def test_times_and_prices_sort_as_text_as_they_sort_as_values() -> None:
    whole = whole_world()
    by_minutes = sorted(whole.times, key=lambda time: int(time.split(":")[0]) * 60 + int(time.split(":")[1]))
    assert by_minutes == sorted(whole.times)
    assert sorted(map(str, whole.prices)) == [str(price) for price in sorted(whole.prices)]
