"""The steps of an epoch as they are planned, and which of their micro-batches weigh most.  Nothing is run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunelab.data.batching import Plan
from tunelab.data.examples import IGNORE, Micro
from tunelab.data.loader import StepLoader

SAMPLE = 20  # steps that are laid out to count pairs of positions and padding


@dataclass(frozen=True)
class Workload:
    """The training data as work.

    Attributes:
        rows: Examples that an epoch sees.
        tokens: Real tokens of an epoch.
        steps: Optimizer steps of an epoch.
        passes: Forward passes of an epoch.
        heaviest: Micro-batches that may take the most memory: by positions, and by what is learned of them.
        later: The same among those that follow another one in their step, while its gradients are kept.
        lengths: Tokens of each sequence in the first steps.
        positions: Tokens of those steps, pads counted.
        learned: Supervised positions of those steps.
    """

    rows: int
    tokens: int
    steps: int
    passes: int
    heaviest: list[list[int]]
    later: list[list[int]]
    lengths: list[int]
    positions: int
    learned: int

    @property
    def padding(self) -> float:
        """Share of the positions that are padding."""
        return 1 - sum(self.lengths) / max(1, self.positions)

    @property
    def pairs(self) -> int:
        """Squared lengths of the first steps, summed."""
        return sum(length * length for length in self.lengths)


def workload(loader: StepLoader) -> Workload:
    """Look at the plans of the first epoch."""
    plans = loader.plans()
    drawn = [index for plan in plans for micro in plan.micros for index in micro]
    first = [micro for plan in plans[:SAMPLE] for micro in laid_out(loader, plan)]
    sizes = [len(example.ids) for example in (loader.examples[index] for index in set(drawn))]
    size = dict(zip(set(drawn), sizes, strict=True))
    return Workload(
        rows=len(drawn),
        tokens=sum(size[index] for index in drawn),
        steps=len(plans),
        passes=sum(len(plan.micros) for plan in plans),
        heaviest=weighty(loader, (micro for plan in plans for micro in plan.micros)),
        later=weighty(loader, (micro for plan in plans for micro in plan.micros[1:])),
        lengths=[length for micro in first for length in micro.lengths.tolist()],
        positions=sum(micro.ids.numel() for micro in first),
        learned=sum(int((micro.targets != IGNORE).sum()) for micro in first),
    )


def laid_out(loader: StepLoader, plan: Plan) -> list[Micro]:
    """The micro-batches of one plan."""
    return [loader.collate([loader.examples[index] for index in micro]) for micro in plan.micros]


def weighty(loader: StepLoader, micros: Iterator[list[int]]) -> list[list[int]]:
    """The micro-batch with the most positions, and the one that learns the most; none of none."""
    found = list(micros)
    if not found:
        return []

    def positions(micro: Sequence[int]) -> int:
        lengths = [loader.lengths[index] for index in micro]
        return sum(lengths) if loader.flat else len(lengths) * max(lengths)

    def learns(micro: Sequence[int]) -> float:
        return sum(loader.units[index] for index in micro)

    chosen = [max(found, key=positions), max(found, key=learns)]
    return chosen[:1] if chosen[0] == chosen[1] else chosen
