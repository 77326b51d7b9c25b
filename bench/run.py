"""Every benchmark beside its peers, one after the other, and one page of what they printed.

    python bench/run.py                                # all parts: about two hours of an idle machine
    python bench/run.py --only search,generation       # some of them
    python bench/run.py --rounds 1                     # shorter

    training    tokens per processor second, first step, memory (peers/), beside a hand-written loop, transformers'
                Trainer, Lightning, TRL, LitGPT and torchtune
    start       processor seconds until packages are there, and of `--help` (start/), beside the Trainer and TRL
    search      what a further trial costs (search/trial_start.py), beside the Trainer with Optuna and a script for each
    data        a million rows: time and memory of the first and the second start (rows/), beside Hugging Face datasets
    generation  answers per processor second (generation/), beside `model.generate`
    devices     memory and seconds of steps of one and two processes, beside what is foretold (strategies/)

Results are written to `results.md` beside this file after every part, so that a part that fails loses nothing.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from run import machine, prepare_peers  # noqa: E402  # of peers/


def commands(rounds: int, python: str, rows: int) -> dict[str, list[str]]:
    """The command of each part, without the interpreter."""
    times = ["--rounds", str(rounds)]
    return {
        "training": ["peers/run.py", *times, "--peers-python", python],
        "start": ["start/run.py", *times, "--peers-python", python],
        "search": ["search/trial_start.py", *times, "--peers-python", python, "--only", "inline,new process,fork"],
        "data": ["rows/run.py", str(rows), "--peers-python", python],
        "generation": ["generation/run.py", str(rounds), "3"],
        "devices": ["strategies/run.py"],
    }


def run_part(words: list[str]) -> tuple[int, str]:
    """The exit status of a part and what it printed, shown as it comes."""
    lines = list[str]()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(HERE / words[0]), *words[1:]]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines).strip()


def page(heading: str, parts: Mapping[str, str]) -> str:
    """The results as Markdown."""
    sections = [f"## {name}\n\n{text}" for name, text in parts.items()]
    return "\n\n".join(["# Results of `make bench`", heading, *sections]) + "\n"


def describe(words: list[str], status: int, text: str, seconds: float, load: float) -> str:
    """One part as Markdown: its command, how long it took, under which load, and what it printed."""
    text = text.replace(sys.executable, "python").replace(f"{HERE.parent}/", "")  # no paths of this machine
    tables = text[text.index("### ") :] if "### " in text else text if "|---" in text else f"```text\n{text}\n```"
    ended = "" if status == 0 else f" **It ended with exit status {status}.**"
    shown = " ".join(word for word in words if "/bin/python" not in word).replace(" --peers-python", "")
    minutes = f"{seconds / 60:.0f} minutes; before it the machine had a load of {load:.1f}.{ended}"
    return f"`python bench/{shown}`, {minutes}\n\n{tables}"


def main() -> int:
    """Run the parts, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts, by comma")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the part on data")
    parser.add_argument("--peers-python", help="interpreter of an environment with the peers")
    parser.add_argument("--output", type=Path, default=HERE / "results.md")
    options = parser.parse_args()
    python = prepare_peers(options.peers_python)
    every = commands(options.rounds, python, options.rows)
    chosen = options.only.split(",") if options.only else [*every]
    if unknown := set(chosen) - set(every):
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(every)}")
    parts, failed = dict[str, str](), list[str]()
    for name in chosen:
        print(f"--- {name}", flush=True)
        load, began = os.getloadavg()[0], time.perf_counter()
        status, text = run_part(every[name])
        parts[name] = describe(every[name], status, text, time.perf_counter() - began, load)
        failed += [name] if status else []
        heading = f"{datetime.now(UTC):%Y-%m-%d}. {machine([sys.executable, python])}"
        options.output.write_text(page(heading, parts), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
