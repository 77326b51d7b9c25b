"""Seconds, processor seconds and memory of `tunelab preview` over many generated rows: the first start and the second.

python bench/rows/run.py 1000000 --task labels
python bench/rows/run.py 1000000 --peers-python .../python  # beside Hugging Face datasets, which does less
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

WORDS = (
    "the cat sat on a mat while rain fell over quiet harbour town and nobody asked why old ships leave before dawn "
    "with lanterns lit because winter came early this year for every fisher who mended nets by candle light"
).split()
LABELS = ("spam", "ham", "news", "other")
HERE = Path(__file__).resolve().parent
TOKENIZER = HERE.parents[1] / "src" / "tunelab" / "starter" / "model"
PREVIEW = [sys.executable, "-P", "-c", "from tunelab.cli.main import main; main()", "preview"]


def write_rows(path: Path, count: int, task: str) -> None:
    """Write rows of about a hundred bytes, the same every time."""
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as sink:
        for _ in range(count):
            text = " ".join(draw.choices(WORDS, k=9)) + f" {draw.randrange(10**6)}"
            row = {"text": text, "label": draw.choice(LABELS)}
            if task == "instruction":
                row = {"instruction": f"{text}?", "output": " ".join(draw.choices(WORDS, k=5))}
            sink.write(json.dumps(row) + "\n")


def measure(command: list[str], environment: dict[str, str]) -> str:
    """Wall and processor seconds of a command with its children, and the most memory that one process held."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:6.1f} s, {cpu:6.1f} processor seconds, at most {after.ru_maxrss / 1024:,.0f} MiB in a process so far"


def main() -> None:
    """Measure both starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("--peers-python", help="interpreter of an environment of bench/peers")
    parser.add_argument("--task", choices=("instruction", "labels"), default="instruction")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        write_rows(file, options.rows, options.task)
        words = ["data=instruction"]
        if options.task == "labels":
            words = ["data=classification", "data.text=text", "data.label=label"]
        command = [
            *PREVIEW,
            *words,
            f"data.train={file}",
            "data.in_memory=1",
            "--output",
            str(Path(folder, "page.html")),
        ]
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        print(f"{options.rows:,} rows, {file.stat().st_size / 10**6:,.0f} MB, {os.cpu_count()} cores")
        for name in ("first start", "second start"):
            print(f"{name:12}", measure(command, environment), flush=True)
        if options.peers_python and options.task == "instruction":
            peer = [options.peers_python, str(HERE / "datasets_peer.py"), str(file), str(TOKENIZER)]
            print(f"{'datasets':12}", measure(peer, environment), flush=True)


if __name__ == "__main__":
    main()
