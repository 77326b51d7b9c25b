"""What the tuning steps bring one after another, on the built-in model and data, as the tuning guide draws it.

    python bench/steps/run.py            # six short trainings, some minutes on one core
    python bench/steps/run.py --draw     # draws the figure from results.csv again

Each step keeps what the steps before it have set.  Writes `results.csv` beside this file (a line a step: its name, the
words it adds, validation loss and exact match of the best checkpoint) and docs/figures/thirteen_steps.svg.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tunelab.report.charts.bars import Bars, bar_chart

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLE = HERE / "results.csv"
DRAWING = ROOT / "docs" / "figures" / "thirteen_steps.svg"
ALWAYS = ["data.limit=800", "logger=none", "save=false", "test=false", "eval.base=false", "eval.generate=true"]
STEPS = {  # name of a bar: the words that the step adds to those before it
    "random weights": ["model=starter_scratch", "lr=1e-4", "max_epochs=1", "scheduler=constant", "scheduler.warmup=0"],
    "11 pretrained weights": ["model=starter"],
    "4 learning rate": ["lr=2e-3"],
    "5 batch size, rate again": ["batch_size=8", "lr=1e-3"],
    "6 epochs": ["max_epochs=6"],
    "7 schedule": ["scheduler=cosine", "scheduler.warmup=0.05"],
}


def train(words: list[str]) -> dict[str, float]:
    """The final scores of one training."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *ALWAYS, *words, f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        scores: dict[str, float] = json.loads(Path(folder, "run", "metrics.json").read_text(encoding="utf-8"))
    return scores


def measure() -> None:
    """Train every step and write the table."""
    known: dict[str, str] = {}
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "adds", "loss", "exact_match"])
        for name, added in STEPS.items():
            known |= {word.partition("=")[0]: word for word in added}
            scores = train(list(known.values()))
            line = [name, shlex.join(added), f"{scores['val/loss']:.4f}", f"{scores['val/exact_match']:.4f}"]
            writer.writerow(line)
            file.flush()
            print(*line, flush=True)


def draw() -> None:
    """Draw the table."""
    with TABLE.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    bars = Bars("validation loss", [float(line["loss"]) for line in lines])
    title = "Validation loss after each step, those before it kept"
    drawing = bar_chart([line["step"] for line in lines], [bars], title=title, value_label="val/loss", level=True)
    DRAWING.write_text(drawing.rstrip() + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="train nothing, draw from results.csv")
    if not parser.parse_args().draw:
        measure()
    draw()


if __name__ == "__main__":
    main()
