"""Processor seconds until packages are there, of this checkout and another one by turns.

python bench/start/run.py --other ../tunelab-before --rounds 5
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
IMPORTS = {
    "training": "import tunelab.training.run",
    "predict": "import tunelab.training.load_run",
    "evaluate": "import tunelab.training.evaluate_run",
    "preview": "import tunelab.training.components",
}
CODE = "import sys, time; start = time.process_time(); exec(sys.argv[1]); print(time.process_time() - start)"


def seconds(checkout: Path, statement: str) -> float:
    """Processor seconds of an import in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    command = [sys.executable, "-c", CODE, statement]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Print medians, and the median of the ratios of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkouts = [HERE, *([options.other.resolve()] if options.other else [])]
    for name, statement in IMPORTS.items():
        rounds = [[seconds(checkout, statement) for checkout in checkouts] for _ in range(options.rounds)]
        medians = ", ".join(f"{statistics.median(column):.2f} s" for column in zip(*rounds, strict=True))
        ratio = f", ratio {statistics.median(one / other for one, other in rounds):.2f}" if options.other else ""
        print(f"{name:9} {medians}{ratio}")


if __name__ == "__main__":
    main()
