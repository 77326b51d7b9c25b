"""Which models to take: those that complement each other, not merely the best.  Pure."""

from collections.abc import Callable, Sequence


def forward(costs: Sequence[float], together: Callable[[Sequence[int]], float], most: int) -> list[int]:
    """Greedy ensemble selection, without repetition (Caruana et al. 2004).

    It begins with the best single model, adds whichever lowers the cost of all together most, and takes the best
    of the sets that it passed through, from two members on.

    Args:
        costs: Of each model by itself, on validation.
        together: Cost of several together.
        most: Members at most.

    Returns:
        Places of the members, in the order in which they were added.
    """
    chosen = [min(range(len(costs)), key=lambda place: costs[place])]
    best, least = list(chosen), float("inf")
    while len(chosen) < min(most, len(costs)):
        left = [place for place in range(len(costs)) if place not in chosen]
        tried = {place: together([*chosen, place]) for place in left}
        chosen.append(min(left, key=lambda place: tried[place]))
        if tried[chosen[-1]] < least:
            best, least = list(chosen), tried[chosen[-1]]
    return best


def greedy_soup(scores: Sequence[float], together: Callable[[Sequence[int]], float]) -> tuple[list[int], float]:
    """Which weights to average: from the best on, each is kept if it does not lower the score of the average.

    Source: Wortsman et al. 2022, Model soups.

    Args:
        scores: Of each model by itself on validation; higher is better.
        together: Score of the average of several.

    Returns:
        Places of the members, best first, and their score together.
    """
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    kept, best = order[:1], scores[order[0]]
    for place in order[1:]:
        tried = together([*kept, place])
        if tried >= best:
            kept, best = [*kept, place], tried
    return kept, best
