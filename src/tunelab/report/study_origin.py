"""The section that says how a study was asked for.  Pure."""

import shlex

from tunelab.report.blocks import Block, Command, Grid, Section, Value
from tunelab.report.next_steps import place, span_told
from tunelab.report.study_facts import StudyFacts


def origin(study: StudyFacts) -> list[Section]:
    """The section."""
    blocks: list[Block] = []
    if study.arguments:
        folder = f"hydra.sweep.dir={place(study)}"
        typed = [line for line in study.arguments if not line.startswith("hydra.sweep.dir=")]
        blocks.append(
            Command(
                f"python train.py -m {shlex.join([*typed, folder])}", "The command; given again, the search goes on:"
            )
        )
    rows: list[list[Value]] = [
        [
            one.name,
            span_told(one),
            "logarithm" if one.log else "even" if one.numeric else "choice",
            "asked for" if one.declared else "seen in the trials",
        ]
        for one in study.settings
    ]
    blocks.append(Grid("space", ["setting", "values", "scale", "known from"], rows, "What varied:"))
    facts: list[list[Value]] = [
        ["folder", str(study.root)],
        ["sampler", study.sampler or None],
        ["pruner", study.summary.get("pruner")],
        ["fixed", " ".join(study.fixed) or None],
    ]
    blocks.append(Grid("study", ["what", "value"], [row for row in facts if row[1] is not None]))
    return [Section("How it came to be", blocks)]
