"""Damaged, hostile and odd files through every command: each must end in one message, or in a result.

    python bench/fuzz/run.py --minutes 10 --seed 0

A tiny run, a run with labels, an adapter, a study and data files are made once.  Then one file at a time is damaged by
chance, and a command is run on it in a process of its own, forked from one that has loaded everything.  A case is a
fault of ours where the process is killed by a signal or takes longer than `--limit` seconds, prints a traceback or an
escape sequence, or ends in an error that nobody foresaw.  Every such case is printed with the number that repeats it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TINY = (
    "model=scratch model.depth=1 model.width=32 model.heads=2 batch_size=16 lr=0.003 logger=csv trainer.accelerator=cpu"
).split()
ANSWERS = "data=instruction data.train=train.jsonl data.validation=val.jsonl data.test=test.jsonl eval.generate=false"
LABELS = (
    "data=classification data.text=text data.label=label data.train=train.csv data.validation=val.csv "
    "data.test=test.csv"
)
ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 0.5, 10**12, 10**400, float("nan"), float("inf"), "", "x", "\x1b[2Jx", "../../x", "/"),
    *([], [None], [[]], {}, {"x": None}, {"": {}}, "9" * 5000),
]
DEEP = 100_000
CUT_FORMATS = (".json", ".jsonl", ".yaml", ".csv", ".lock", ".log", ".jinja", ".txt", ".md")


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """The bytes of a file after a crash, a wrong copy or a joke."""
    cut = chance.randrange(len(content) + 1) if content else 0
    flipped = bytearray(content or b"x")
    for _ in range(chance.randint(1, 4)):
        flipped[chance.randrange(len(flipped))] = chance.randrange(256)
    return chance.choice(
        [
            *(b"", b"\0" * 64, content[:cut], content[cut:], bytes(flipped), content + content, b"null", b"[]", b"{}"),
            *(b"[" * DEEP, b'{"a":' * DEEP, b"- " * DEEP, b"3", b'"text"', b"[1, 2]", b"\xff\xfe\x00", b"NaN", b"a: b"),
            *(content.decode("utf-8", "replace").encode("utf-16"), b"\x1f\x8b" + content, content.replace(b'"', b"'")),
            *(content.replace(b"\n", b""), content.replace(b"0", b"\x1b[31m"), alias_bomb(), b"${oc.env:HOME}"),
        ]
    )


def alias_bomb() -> bytes:
    """A short yaml that stands for a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join([*lines, "data: *a9"]).encode()


def damage_value(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """A value in which one part, at any depth, is gone or of another kind."""
    if isinstance(value, dict) and value and (depth == 0 or chance.random() < 0.7):
        name = chance.choice(list(value))
        if chance.random() < 0.2:
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: damage_value(value[name], chance, depth + 1)}
    if isinstance(value, list) and value and chance.random() < 0.6:
        place = chance.randrange(len(value))
        return [*value[:place], damage_value(value[place], chance, depth + 1), *value[place + 1 :]]
    return chance.choice(ODD_VALUES)


def damage_file(path: Path, chance: random.Random) -> str:
    """Damage a file in one way; returns which."""
    content = path.read_bytes() if path.is_file() else b""
    odd = chance.random()
    if odd < 0.1:
        path.unlink(missing_ok=True)
        kind = chance.choice(["missing", "folder", "pipe", "dangling link", "link to itself", "device"])
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind != "missing":
            path.symlink_to({"dangling link": "nowhere", "link to itself": path.name, "device": "/dev/zero"}[kind])
        return kind
    fresh = None
    if odd < 0.7:
        fresh = damage_structure(path, content, chance)
    how = "structure" if fresh is not None else "bytes"
    path.unlink(missing_ok=True)  # it may be a hard link of the original
    path.write_bytes(fresh if fresh is not None else damage_bytes(content, chance))
    return how


def damage_structure(path: Path, content: bytes, chance: random.Random) -> bytes | None:
    """The file with one value of another kind; None where it has no structure to damage."""
    import yaml

    try:
        if path.suffix in (".jsonl", ".log", ".lock") and content.count(b"\n") > 1:
            lines = content.decode().splitlines()
            place = chance.randrange(len(lines))
            lines[place] = json.dumps(damage_value(json.loads(lines[place]), chance))
            return ("\n".join(lines) + "\n").encode()
        if path.suffix in (".json", ".lock", ".jsonl"):
            return json.dumps(damage_value(json.loads(content), chance)).encode()
        if path.suffix == ".yaml":
            damaged = damage_value(yaml.safe_load(content), chance)
            return yaml.safe_dump(json.loads(json.dumps(damaged)), allow_unicode=False).encode()
        if path.suffix == ".csv":
            cells = [line.split(",") for line in content.decode().splitlines()]
            row = chance.choice(cells)
            row[chance.randrange(len(row))] = str(chance.choice(ODD_VALUES))
            return ("\n".join(",".join(line) for line in cells) + "\n").encode()
    except (ValueError, OverflowError, yaml.YAMLError):
        pass
    return None


def train(arguments: list[str], folder: Path) -> None:
    """Train in a process of its own, or fail."""
    subprocess.run([sys.executable, ROOT / "train.py", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def make_originals(place: Path) -> None:
    """The files that are damaged: data, runs, an adapter, a study."""
    chance = random.Random(0)
    for split, rows in (("train", 32), ("val", 12), ("test", 12)):
        sums = [(chance.randrange(10), chance.randrange(10), number) for number in range(rows)]
        lines = [json.dumps({"prompt": f"{split} {a}+{b} ({n})", "completion": str(a + b)}) for a, b, n in sums]
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        labels = [f"{split} word {n},{'even' if n % 2 else 'odd'}" for n in range(rows)]
        (place / f"{split}.csv").write_text("\n".join(["text,label", *labels]) + "\n")
    data, labels = ANSWERS.split(), LABELS.split()
    train([*data, *TINY, "max_epochs=1", "hydra.run.dir=run"], place)
    train([*labels, *TINY, "max_epochs=1", "hydra.run.dir=labels"], place)
    lora = ["model.path=run/export", "adapter=lora", *TINY[4:], "max_epochs=1", "hydra.run.dir=lora"]
    train([*data, *lora], place)
    train(["-m", *labels, *TINY, "lr=0.001,0.003", "max_steps=1", "test=false", "hydra.sweep.dir=study"], place)
    (place / "yamls").mkdir()
    shutil.copy(place / "study" / "best.yaml", place / "yamls" / "best.yaml")
    shutil.copy(ROOT / "src/tunelab/data/templates/chatml.jinja", place / "talk.jinja")


RUN_FILES = (
    *("run.json", "config.yaml", "task.json", "metrics.csv", "metrics.json", "scores.json", "predictions.jsonl"),
    *("data_report.json", "doctor.json", "run.lock", "looks.jsonl"),
)
STUDY_FILES = (
    *("search.json", "study.json", "trials.jsonl", "journal.log", "best.yaml", "study.csv"),
    *("0/run.json", "0/metrics.json"),
)
RUN_COMMANDS = (
    *("report {run}", "doctor {run}", "predict {run} --input test.{kind} --output out.jsonl --limit 2", "chat {run}"),
    *("evaluate {run} --data test.{kind}", "reproduce {run} --check", "export {run} --no-check --output out"),
    *("train resume={run} max_epochs=1 trainer.enable_progress_bar=false", "ensemble {run} labels --output e"),
)
STUDY_COMMANDS = (
    *("report {run}", "ensemble --from {run} --output e", "confirm {run} --seeds 1", "report {run} run"),
    "train -m LABELS TINY lr=0.001,0.003 max_steps=1 test=false hydra.sweep.dir={run}",
    "train -m LABELS TINY lr=0.001,0.003 hydra.sweep.dir=again search.warm_start=[{run}] search.hours=0",
)
MODEL_COMMANDS = ("chat {run}", "inspect DATA model.path={run}", "preview DATA model.path={run}")
YAML_COMMANDS = ("train experiment={run}/best LABELS TINY --cfg job", "preview experiment={run}/best LABELS TINY")
DATA_COMMANDS = ("preview DATA TINY", "preview LABELS TINY", "predict run --input test.jsonl --output out.jsonl")
TEMPLATE_COMMANDS = ("preview DATA TINY data.template=talk.jinja",)


def files_below(folder: Path) -> list[Path]:
    """Files that are worth damaging: all but weights."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and (file.suffix in CUT_FORMATS or file.stat().st_size < 10**6)
    )


def choose_case(place: Path, chance: random.Random) -> tuple[Path, str]:
    """A file to damage, and a command that meets it."""
    target = chance.choice("run run run labels labels study study study model model adapter yaml data data".split())
    if target in ("run", "labels"):
        folder = place / target
        kind = "jsonl" if target == "run" else "csv"
        return folder / chance.choice(RUN_FILES), chance.choice(RUN_COMMANDS).format(run=target, kind=kind)
    if target == "study":
        return place / "study" / chance.choice(STUDY_FILES), chance.choice(STUDY_COMMANDS).format(run="study")
    if target == "model":
        file = chance.choice([*files_below(place / "run" / "export"), *[place / "run/export/config.json"] * 4])
        return file, chance.choice(MODEL_COMMANDS).format(run="run/export")
    if target == "adapter":
        return chance.choice(files_below(place / "lora" / "export" / "adapter")), "chat lora/export/adapter"
    if target == "yaml":
        return place / "yamls" / "best.yaml", chance.choice(YAML_COMMANDS).format(run="yamls")
    file = chance.choice(["train.jsonl", "train.csv", "test.jsonl", "talk.jinja"])
    commands = {"train.jsonl": DATA_COMMANDS[:1], "train.csv": DATA_COMMANDS[1:2], "test.jsonl": DATA_COMMANDS[2:]}
    return place / file, chance.choice(commands.get(file, TEMPLATE_COMMANDS))


def words_of(command: str) -> list[str]:
    """The words of a command, its abbreviations written out."""
    long = {"LABELS": LABELS.split(), "DATA": ANSWERS.split(), "TINY": TINY}
    return [part for word in command.split() for part in long.get(word, [word])]


def run_in_child(words: list[str], folder: Path, output: Path, limit: float) -> int:
    """The exit status of a command in a forked process; negative for a signal, -99 where it took too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, source in ((0, empty), (1, handle), (2, handle)):
            os.dup2(source, number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        status = 70
        try:
            if words[0] == "train":
                from tunelab.cli import launch

                sys.argv = ["train.py", *words[1:]]
                launch.main()
            else:
                from tunelab.cli.main import main

                main(words)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        except BaseException:  # what a user would see as a traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -99


def verdict(status: int, text: str) -> str | None:
    """What is wrong with the end of a command; None where all is well."""
    if status == -99:
        return "hang"
    if status < 0:
        return f"signal {-status}"
    if "Traceback (most recent call last)" in text:
        return "traceback"
    if "\x1b" in text:
        return "escape sequence"
    if "nobody foresaw" in text:
        return "unforeseen"
    return None if status in (0, 1, 2, 3) else f"status {status}"


def cases(place: Path, number: int, limit: float) -> Iterator[tuple[int, str, str, str | None, int, str]]:
    """The cases after `number`, without end: number, file, command, verdict, exit status, output."""
    while True:
        number += 1
        chance = random.Random(number)
        work = place.parent / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(place, work, copy_function=os.link, symlinks=True)
        file, command = choose_case(work, chance)
        if not file.parent.is_dir():
            continue
        how = damage_file(file, chance)
        output = place.parent / "output.txt"
        status = run_in_child(words_of(command), work, output, limit)
        text = output.read_text(errors="replace")
        yield number, f"{file.relative_to(work)} ({how})", command, verdict(status, text), status, text


def preload() -> None:
    """Load once what every command needs."""
    from tunelab.cli import chat_command, evaluate_command, launch, main, predict_command  # noqa: F401
    from tunelab.ensemble import ensemble_inference  # noqa: F401
    from tunelab.report import compose  # noqa: F401
    from tunelab.runs.console import silence_libraries
    from tunelab.training import load_run, run  # noqa: F401

    silence_libraries()


def main() -> int:
    """Run cases for a while and print those that fail, and a summary; exit status 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other cases (0)")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a command hangs (60)")
    parser.add_argument("--originals", type=Path, help="folder of the files that are damaged, kept and used again")
    parser.add_argument("--case", type=int, help="run this one case and print its output")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.originals or Path(scratch) / "originals"
        if not (place / "study").is_dir():
            place.mkdir(parents=True, exist_ok=True)
            make_originals(place)
        preload()
        if arguments.case is not None:
            for number, file, command, fault, status, text in cases(place, arguments.case - 1, arguments.limit):
                print(number, file, command, fault, status, text, sep="\n")
                return int(fault is not None)
        started, ends, faults = time.monotonic(), Counter[str](), 0
        for number, file, command, fault, status, text in cases(place, arguments.seed * 1_000_000, arguments.limit):
            ends[fault or f"status {status}"] += 1
            if fault:
                faults += 1
                last = " | ".join(text.strip().splitlines()[-2:])[-300:]
                print(f"{fault}: case {number}: {file}: {command}\n    {last}", flush=True)
            if time.monotonic() - started > 60 * arguments.minutes:
                break
        total = sum(ends.values())
        spent = (time.monotonic() - started) / 60
        print(f"{total} cases in {spent:.1f} minutes, seed {arguments.seed}: {faults} faults")
        print(", ".join(f"{end}: {count}" for end, count in sorted(ends.items())))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
