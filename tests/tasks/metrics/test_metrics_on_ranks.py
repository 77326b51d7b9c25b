"""Scores shared by two processes, one of which may have nothing but a filler.  Also the program that they run."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import distributed

from tunelab.data.examples import MicroBatch
from tunelab.tasks.metrics.label_metrics import MulticlassScores, MultilabelScores
from tunelab.tasks.metrics.regression_metrics import RegressionScores

RECORDS = 11


def scored(rank: int, world: int) -> list[list[dict[str, Any]]]:
    """Scores and reports of every kind, with five records on the second rank and then with none."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(RECORDS, 3, generator=generator)
    classes = torch.randint(3, (RECORDS,), generator=generator)
    numbers = torch.randn(RECORDS, 3, generator=generator)
    found = []
    for away in (5, 0):
        shares = [range(away, RECORDS), range(away)] if world == 2 else [range(RECORDS)]
        rows = torch.tensor([*shares[rank], -1])
        for scores, targets in (
            (MulticlassScores("abc"), classes),
            (MultilabelScores("abc", 0.5), (numbers > 0).float()),
            (RegressionScores("abc", [1.0] * 3, [2.0] * 3), numbers),
        ):
            scores.update(logits[rows], MicroBatch(rows[:, None], torch.ones_like(rows), targets[rows], rows))
            found.append([scores.compute(), scores.report()])
    return found


@pytest.mark.slow  # two interpreters import everything
@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_give_the_scores_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), address], stdout=subprocess.PIPE, env=places)
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=500)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    alone = scored(0, 1)
    for lines in printed:  # every rank knows the whole
        shared = json.loads(lines)
        for (scores, report), (scores_of_two, report_of_two) in zip(alone, shared, strict=True):
            assert scores_of_two == pytest.approx(scores, rel=1e-12)
            if "confusion" in report:
                assert report_of_two == report
            for row, row_of_two in zip(report.get("per_target", []), report_of_two.get("per_target", []), strict=True):
                assert row_of_two.pop("target") == row["target"]
                assert row_of_two == pytest.approx({key: row[key] for key in row_of_two}, rel=1e-12)


if __name__ == "__main__":
    own_rank = int(sys.argv[1])
    distributed.init_process_group("gloo", init_method=sys.argv[2], rank=own_rank, world_size=2)
    print(json.dumps(scored(own_rank, 2)))
    distributed.destroy_process_group()
