"""How often the 95 % interval of a score covers the score over all rows like these: `python bench/intervals/run.py`.

A population is made (class shares, how often each class is right, what it is mistaken for), splits are drawn of it,
and the interval of each split, as reports print it, is held against the score of the whole population.  No model and no
data are needed.  `--write` renews the table of README.md.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from readme_table import renew_table

from tunelab.analysis.row_scores import (
    FloatArray,
    RowScore,
    macro_f1_score,
    mean_score,
    multilabel_f1_score,
    pearson_score,
    ratio_score,
)
from tunelab.analysis.statistics import bootstrap_scores, percentile_interval, score_interval

POPULATIONS = 10  # made-up populations of each setting; the splits are shared out among them
DRAWS = 300  # bootstrap samples of an interval
TABLE_MARK = "<!-- table -->"

Draw = Callable[
    [np.random.Generator], tuple[Callable[[], RowScore], float]
]  # a population: splits of it, and its score


def classes(
    rows: int, count: int, accuracy: float, imbalance: float, dice: np.random.Generator
) -> tuple[Callable[[], RowScore], float]:
    """Macro F1 of `count` classes: shares of 1 / rank ** imbalance, each right with a chance of its own."""
    share = np.arange(1, count + 1) ** -imbalance
    right = dice.beta(5 * accuracy, 5 * (1 - accuracy), count)
    cells = dice.dirichlet(np.full(count, 0.3), count)
    np.fill_diagonal(cells, 1e-9)
    cells *= ((1 - right) / (cells.sum(axis=1) - 1e-9))[:, None]
    np.fill_diagonal(cells, right)
    cells *= (share / share.sum() / cells.sum(axis=1))[:, None]
    table = cells.ravel() / cells.sum()
    truth = float((2 * np.diag(cells) / (cells.sum(axis=0) + cells.sum(axis=1))).mean())

    def split() -> RowScore:
        drawn = dice.choice(count * count, rows, p=table)
        return macro_f1_score(drawn // count, drawn % count, count)

    return split, truth


def labels(rows: int, count: int, dice: np.random.Generator) -> tuple[Callable[[], RowScore], float]:
    """Macro F1 of several labels a row, rare and common ones."""
    share, hit, alarm = dice.uniform(0.02, 0.4, count), dice.uniform(0.5, 0.95, count), dice.uniform(0, 0.05, count)
    truth = float((2 * share * hit / (share + share * hit + (1 - share) * alarm)).mean())

    def split() -> RowScore:
        true = dice.random((rows, count)) < share
        predicted = dice.random((rows, count)) < np.where(true, hit, alarm)
        return multilabel_f1_score((true & predicted) * 1.0, true * 1.0 + predicted)

    return split, truth


def means(
    rows: int, values: Callable[[np.random.Generator, int], FloatArray], truth: float, dice: np.random.Generator
) -> tuple[Callable[[], RowScore], float]:
    """The mean of one value a row."""
    return lambda: mean_score(values(dice, rows)), truth


def correlated(
    rows: int, correlation: float, freedom: float, dice: np.random.Generator
) -> tuple[Callable[[], RowScore], float]:
    """Pearson's correlation, of values with the tails of Student's t."""

    def split() -> RowScore:
        values = dice.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], rows)
        values /= np.sqrt(dice.chisquare(freedom, rows) / freedom)[:, None]
        return pearson_score(values[:, :1], values[:, 1:])

    return split, correlation


def losses(rows: int, dice: np.random.Generator) -> tuple[Callable[[], RowScore], float]:
    """Loss by token: rows of unequal length, long ones with a lower loss."""

    def split() -> RowScore:
        tokens = 1.0 + dice.poisson(dice.exponential(60, rows))
        return ratio_score(tokens * dice.gamma(2.0, 1.0, rows) * (1 + 10 / tokens) / 2, tokens, lower_is_better=True)

    return split, 1 + 10 / 61


def rouge_values(dice: np.random.Generator, rows: int) -> FloatArray:
    """Values as ROUGE-L gives them: many 1, the rest low; 0.68 on average."""
    return np.where(dice.random(rows) < 0.6, 1.0, dice.beta(0.5, 2.0, rows))


def squared_t(dice: np.random.Generator, rows: int) -> FloatArray:
    """Squared errors with heavy tails; 1.5 on average."""
    return np.asarray(dice.standard_t(6, rows) ** 2)


def right_answers(chance: float, dice: np.random.Generator, rows: int) -> FloatArray:
    """Answers that are right or wrong."""
    return (dice.random(rows) < chance) * 1.0


def settings() -> Iterator[tuple[str, str, Draw]]:
    """Score, setting and population of each line of the table."""
    for rows, count, imbalance in ((300, 100, 0.0), (300, 10, 0.0), (1000, 50, 1.0), (100, 2, 0.0)):
        for accuracy in (0.6, 0.8, 0.95):
            shape = "shares of 1 / rank" if imbalance else "equal shares"
            name = f"{rows} rows, {count} classes, {shape}, accuracy {accuracy}"
            yield "macro F1", name, partial(classes, rows, count, accuracy, imbalance)
    yield "macro F1", "200 rows, 100 classes, equal shares, accuracy 0.8", partial(classes, 200, 100, 0.8, 0.0)
    yield "macro F1, several labels", "300 rows, 20 labels", partial(labels, 300, 20)
    for rows, chance in ((50, 0.9), (200, 0.02), (200, 0.98), (400, 0.7)):
        yield (
            "accuracy, exact match",
            f"{rows} rows, {chance} right",
            partial(means, rows, partial(right_answers, chance), chance),
        )
    for rows in (50, 300):
        yield "token F1, ROUGE-L", f"{rows} rows, most of them 1", partial(means, rows, rouge_values, 0.68)
        yield "mse", f"{rows} rows, errors of Student's t with 6 degrees", partial(means, rows, squared_t, 1.5)
        yield (
            "mse",
            f"{rows} rows, normal errors",
            partial(means, rows, lambda dice, many: dice.normal(size=many) ** 2, 1.0),
        )
        yield "pearson", f"{rows} rows, 0.8, normal", partial(correlated, rows, 0.8, 1e9)
        yield "pearson", f"{rows} rows, 0.8, tails of t with 6 degrees", partial(correlated, rows, 0.8, 6.0)
        yield "loss by token, perplexity", f"{rows} rows of unequal length", partial(losses, rows)


def coverage(population: Draw, splits: int, seed: int) -> list[float]:
    """Share of splits whose interval covers the truth, share whose interval holds their own score, mean width; then the
    same of the percentiles of the plain bootstrap.
    """
    dice = np.random.default_rng(seed)
    lines: list[NDArray[np.float64]] = []
    for _ in range(POPULATIONS):
        split, truth = population(dice)
        for number in range(splits // POPULATIONS):
            score = split()
            interval = score_interval(score, draws=DRAWS, seed=number)
            low, high = percentile_interval(bootstrap_scores(score, draws=DRAWS, seed=number))
            value = score.value
            ours = [interval.low <= truth <= interval.high, interval.low <= value <= interval.high]
            plain = [low <= truth <= high, low <= value <= high]
            lines.append(np.array([*ours, interval.high - interval.low, *plain, high - low], dtype=np.float64))
    return [float(each) for each in np.mean(lines, axis=0)]


def main() -> None:
    """Print the table, and write it into README.md where that is requested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=400, help="splits of each setting (400)")
    parser.add_argument("--only", default="", help="settings whose score or name holds this")
    parser.add_argument("--write", action="store_true", help="renew the table of README.md")
    arguments = parser.parse_args()
    table = [
        "| score | setting | coverage | holds its value | width | plain: coverage | holds its value | width |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for score, name, population in settings():
        if arguments.only in f"{score}, {name}":
            cells = coverage(population, arguments.splits, seed=0)
            texts = ["none"] * 3 if np.isnan(cells[2]) else [f"{cell:.3f}" for cell in cells[:3]]
            texts += [f"{cell:.3f}" for cell in cells[3:]]
            table.append(f"| {score} | {name} | {' | '.join(texts)} |")
            print(table[-1], flush=True)
    if arguments.write:
        renew_table(TABLE_MARK, table)


if __name__ == "__main__":
    main()
