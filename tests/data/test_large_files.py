"""A file larger than the bound is not held in memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

ROWS = 150_000
BOUND = 130  # megabytes above what the libraries take; the records as a list of dicts take more than twice as much
CODE = """
import sys
from pathlib import Path
import pyarrow
from tunelab.training.components import build_task
from tunelab.data.loader import BatchLoader
from tunelab.data.data_sources import encode_split, read_splits
from tunelab.models.load_model import load_tokenizer
sys.path.insert(0, sys.argv[1])
from support.tiny_runs import settings

def held():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1000  # the most this process ever held, in megabytes

run = settings("data=instruction", f"data.train={sys.argv[2]}", f"data.in_memory={sys.argv[3]}", "logger=none")
task, tokenizer = build_task(run), load_tokenizer(run.model)
before = held()
splits = read_splits(run.data, task, seed=0).splits
task.fit(splits["train"].rows)
task.set_tokenizer(tokenizer, 512)
examples, _ = encode_split(splits["validation"], task)
loader = BatchLoader(examples, collate=task.collate, filler=task.padding_example(), batch_size=32, micro_tokens=4096)
assert sum(1 for _ in loader) == len(loader)
print(held() - before, len(splits["train"].rows) + len(examples))
"""


def growth(file: Path, in_memory: int) -> float:
    """Megabytes that reading, encoding and one epoch over the validation split take in a process of their own."""
    tests = ROOT / "tests"
    command = [sys.executable, "-c", CODE, str(tests), str(file), str(in_memory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes, rows = done.stdout.split()[-2:]
    assert int(rows) > 0.8 * ROWS
    return float(megabytes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much a process held")
def test_a_large_file_takes_a_bounded_part_of_memory(tmp_path: Path) -> None:
    # Given a file whose records take several hundred megabytes as Python objects
    file = tmp_path / "large.jsonl"
    with file.open("w") as sink:
        for i in range(ROWS):
            answer = " ".join(str((i * place) % 97) for place in range(1, 12))
            row = {"instruction": f"Question {i}: " + "the cat sat on a mat " * 20, "input": "", "output": answer}
            sink.write(json.dumps(row) + "\n")

    # Then on disk it stays below a bound that it breaks as a list
    assert growth(file, 1) < BOUND < growth(file, 10_000)
