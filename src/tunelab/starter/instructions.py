"""The built-in instruction set: records with instruction, input, output and family."""

import random

from tunelab.starter.exercises import ASKED
from tunelab.starter.world import SPLITS, share_out

RECORDS = {"train": 3200, "validation": 400, "test": 400}


def write_instructions(seed: int) -> dict[str, list[dict[str, str]]]:
    """Draw the three splits.

    Every family is equally frequent, no text occurs twice, and no two splits share a name or a value.

    Args:
        seed: Decides everything that is drawn.

    Returns:
        Records per split, in shuffled order.
    """
    worlds = share_out(seed)
    seen: set[str] = set()
    splits: dict[str, list[dict[str, str]]] = {}
    for split in SPLITS:
        rng = random.Random(f"instructions {seed} {split}")
        records: list[dict[str, str]] = []
        for family, draw in ASKED.items():
            wanted = len(records) + RECORDS[split] // len(ASKED)
            while len(records) < wanted:
                exercise = draw(rng, worlds[split])
                if exercise.text in seen:
                    continue
                seen.add(exercise.text)
                records.append(
                    {
                        "instruction": exercise.asked,
                        "input": exercise.text,
                        "output": exercise.answer,
                        "family": family,
                    }
                )
        rng.shuffle(records)
        splits[split] = records
    return splits
