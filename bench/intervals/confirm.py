"""How often `tunelab confirm` adopts a configuration that equals the default: `python bench/intervals/confirm.py`.

Scores of the default and of one or three candidates are drawn from one law, seed by seed; whatever is adopted is a
mistake.  The laws are those that training meets: normal, heavy-tailed and skewed scores, accuracies of few rows, scores
in coarse steps, trainings that fail for some seeds.  `--write` renews the table of README.md.
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from readme_table import renew_table

from tunelab.search.confirmation import compare_with_default

Scores = NDArray[np.float64]
Law = Callable[[np.random.Generator, tuple[int, int]], Scores]
TABLE_MARK = "<!-- confirm -->"
CANDIDATES, SEEDS = (1, 3), (2, 3, 4, 5)


def accuracy(dice: np.random.Generator, shape: tuple[int, int], rows: int, spread: float) -> Scores:
    """Accuracy on a split of some rows, of models that differ by seed."""
    chance = np.clip(0.8 + dice.normal(0, spread, shape), 0, 1)
    return np.asarray(dice.binomial(rows, chance) / rows)


def failing(dice: np.random.Generator, shape: tuple[int, int], share: float) -> Scores:
    """Accuracy where a share of the trainings ends at chance."""
    return np.asarray(np.where(dice.random(shape) < share, 0.5, 0.9) + dice.normal(0, 0.01, shape))


LAWS: Mapping[str, Law] = {
    "normal": lambda dice, shape: dice.normal(size=shape),
    "Student's t with 3 degrees": lambda dice, shape: dice.standard_t(3, shape),
    "lognormal": lambda dice, shape: dice.lognormal(size=shape),
    "accuracy of 50 rows": lambda dice, shape: accuracy(dice, shape, 50, 0.005),
    "accuracy of 200 rows": lambda dice, shape: accuracy(dice, shape, 200, 0.01),
    "accuracy of 1000 rows": lambda dice, shape: accuracy(dice, shape, 1000, 0.01),
    "two values": lambda dice, shape: dice.integers(0, 2, shape) / 100,
    "three values": lambda dice, shape: dice.integers(0, 3, shape) / 100,
    "one training in five fails": lambda dice, shape: failing(dice, shape, 0.2),
    "half of the trainings fail": lambda dice, shape: failing(dice, shape, 0.5),
    "a steadier default": lambda dice, shape: dice.normal(size=shape) * np.r_[0.1, [1] * (shape[0] - 1)][:, None],
}  # fmt: skip


def adopted_share(law: Law, many: int, seeds: int, studies: int) -> float:
    """The share of studies in which something is adopted."""
    dice, adopted = np.random.default_rng(0), 0
    for _ in range(studies):
        default, *candidates = law(dice, (many + 1, seeds)).tolist()
        adopted += any(one.adopt for one in compare_with_default(candidates, default, "max"))
    return adopted / studies


def main() -> None:
    """Print the table, and write it into README.md where that is requested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="studies of each cell (1000)")
    parser.add_argument("--write", action="store_true", help="renew the table of README.md")
    arguments = parser.parse_args()
    columns = [(many, seeds) for many in CANDIDATES for seeds in SEEDS]
    heads = " | ".join(f"{many} of {seeds} seeds" for many, seeds in columns)
    table = [f"| scores | {heads} |", "|---|" + "---|" * len(columns)]
    for name, law in LAWS.items():
        cells = " | ".join(f"{100 * adopted_share(law, *column, arguments.studies):.1f}" for column in columns)
        table.append(f"| {name} | {cells} |")
        print(table[-1], flush=True)
    if arguments.write:
        renew_table(TABLE_MARK, table)


if __name__ == "__main__":
    main()
