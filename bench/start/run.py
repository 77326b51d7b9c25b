"""Processor seconds of commands until their packages are there, of this checkout and another one by turns.

python bench/start/run.py --other ../tunelab-before --rounds 5
python bench/start/run.py --peers-python .../python  # beside the imports of peers
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

HERE = Path(__file__).resolve().parents[2]
OURS = {
    "train.py --help": ["train.py", "--help"],
    "training": ["-c", "import tunelab.training.run"],
    "predict": ["-c", "import tunelab.training.load_run"],
    "evaluate": ["-c", "import tunelab.training.evaluate_run"],
    "preview": ["-c", "import tunelab.training.components"],
}
PEERS = {
    "Lightning": ["-c", "import lightning.pytorch"],
    "Trainer": ["-c", "from transformers import Trainer"],
    "TRL": ["-c", "from trl import SFTTrainer"],
}


def seconds(python: str, words: list[str], checkout: Path) -> float:
    """Processor seconds of a command, the start of its interpreter included."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([python, *words], cwd=checkout, env=environment, check=True, capture_output=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print medians, and the median of the ratios of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--peers-python", help="interpreter of an environment of bench/peers")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkouts = [HERE, *([options.other.resolve()] if options.other else [])]
    for name, words in OURS.items():
        rounds = [[seconds(sys.executable, words, checkout) for checkout in checkouts] for _ in range(options.rounds)]
        medians = ", ".join(f"{statistics.median(column):.2f} s" for column in zip(*rounds, strict=True))
        ratio = f", ratio {statistics.median(one / other for one, other in rounds):.2f}" if options.other else ""
        print(f"{name:15} {medians}{ratio}", flush=True)
    for name, words in PEERS.items() if options.peers_python else ():
        spent = [seconds(options.peers_python, words, HERE) for _ in range(options.rounds)]
        print(f"{name:15} {statistics.median(spent):.2f} s", flush=True)


if __name__ == "__main__":
    main()
