"""Does an ensemble of the best trials of a search beat the best of them alone?

    python bench/ensemble/run.py                      # three sets, ten trials each; about 10 minutes of one core
    python bench/ensemble/run.py --trials 3 --only sib200  # a quick look

sib200 (English, 700 texts to learn from, 7 topics), sms_spam (500, 2) and the first 20 intents of banking77 (900), with
their whole validation and test splits.  For each: a random search of ten trials over rate, batch size, weight decay,
dropout and seed (one layer of the MiniLM encoder above frozen embeddings), then `tunelab ensemble --from STUDY --top 5`
by every method.  Members, weights and the best single trial are chosen on validation; the test split is scored once for
each method.  Writes `results.csv` and `results.md` beside this file.  The same command goes on where it was stopped.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "data"
METHODS = ("soft", "hard", "weighted", "stack", "greedy_soup")
SCORES = ("accuracy", "f1", "loss")

# name: folder, files of train, validation and test, columns of text and label, training rows, most classes
SETS = {
    "sib200": ("sib200/eng_Latn", ("train.tsv", "dev.tsv", "test.tsv"), "text", "category", 700, 99),
    "sms_spam": ("sms_spam", ("train.csv", "val.csv", "test.csv"), "text", "label", 500, 99),
    "banking77": ("banking77", ("train.csv", "val.csv", "test.csv"), "text", "category", 900, 20),
}
SPACE = [
    "lr=interval(2e-4,4e-3)",
    "batch_size=16,32",
    "regularization.weight_decay=0.0,0.01,0.1",
    "regularization.dropout=0.0,0.1,0.2",
    "seed=1,2,3,4,5,6,7,8,9,10",
]
FIXED = [
    *"model=minilm model.depth=1 model.freeze=[embeddings] max_epochs=3 data.max_tokens=32".split(),
    *"data.near_duplicates=null logger=none callbacks.throughput=false".split(),
    *"trainer.enable_progress_bar=false trainer.accelerator=cpu".split(),
    *"search=random search.isolation=inline search.keep=null search.test_best=false search.seed=0".split(),
    "search.retry=failed",
]


def subset(source: Path, target: Path, label: str, classes: int, rows: int | None = None) -> Path:
    """Rows of the first `classes` labels by name, of them a seeded sample of `rows`, with the header.

    A row may span lines, so rows are read, not counted.
    """
    mark = "\t" if source.suffix == ".tsv" else ","
    with source.open(encoding="utf-8", newline="") as file:
        header, *records = csv.reader(file, delimiter=mark)
    place = header.index(label)
    kept = sorted({record[place] for record in records})[:classes]
    records = [record for record in records if record[place] in kept]
    chosen = records if rows is None else random.Random(0).sample(records, min(rows, len(records)))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header, *chosen])
    return target


def call(*words: str) -> None:
    """Run a command of the project; its last words on the terminal where it fails."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"{' '.join(words[:4])} ended with status {done.returncode}:\n{done.stderr[-2000:]}{done.stdout[-500:]}"
        )


COMBINE = """
import sys
from tunelab.cli.main import main
study, place, *methods = sys.argv[1:]
for method in methods:
    try:
        main(["ensemble", "--from", study, "--top", "5", "--method", method, "--output", f"{place}/{method}"])
    except SystemExit as left:
        if left.code:
            raise
"""


def combine(study: Path, place: Path) -> None:
    """`tunelab ensemble --from STUDY --top 5` by every method that is not there yet, in one process: it loads once."""
    missing = [method for method in METHODS if not (place / method / "ensemble.json").is_file()]
    if missing:
        call("-c", COMBINE, str(study), str(place), *missing)


def finished(study: Path) -> int:
    """Trials of a study that have come to their end."""
    summary = study / "study.json"
    return int(json.loads(summary.read_text(encoding="utf-8"))["counts"]["complete"]) if summary.is_file() else 0


def measure(name: str, trials: int, work: Path) -> list[dict[str, str | float]]:
    """Search one set, combine its trials by every method: one line a method and score."""
    folder, files, text, label, rows, classes = SETS[name]
    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    given = []
    for split, file, most in zip(("train", "validation", "test"), files, (rows, None, None), strict=True):
        kept = subset(DATA / folder / file, place / f"{split}.csv", label, classes, most)
        given.append(f"data.{split}={kept}")
    study = place / "study"
    if finished(study) < trials:
        call(
            "train.py", "-m", "data=classification", *given, f"data.text={text}", f"data.label={label}", *FIXED, *SPACE,
            f"search.trials={trials}", f"hydra.sweep.dir={study}",
        )  # fmt: skip
    combine(study, place)
    found: list[dict[str, str | float]] = []
    for method in METHODS:
        facts = json.loads((place / method / "ensemble.json").read_text(encoding="utf-8"))
        calibration = facts.get("calibration", {}).get("ensemble", {})
        for score in SCORES:
            line = facts["gains"][score]
            found.append({
                "set": name, "method": method, "score": score, "members": len(facts["members"]), **line,
                "ece": calibration.get("ece", ""), "ece_calibrated": calibration.get("ece_calibrated", ""),
            })  # fmt: skip
    return found


def summary(lines: list[dict[str, str | float]], trials: int) -> str:
    """The page beside the figures: gains by set and in the mean, and the verdict."""
    sets = list(dict.fromkeys(str(line["set"]) for line in lines))
    text = [
        "# Ensembles of a search against its best trial",
        "",
        f"Gain on test over the best of {trials} trials (best on validation), in points, with the 95 %",
        "interval of a paired bootstrap over test rows. Made by `python bench/ensemble/run.py`.",
        "",
    ]
    for score in ("accuracy", "f1"):
        text += [f"## {score}", "", f"| method | {' | '.join(sets)} | mean |", f"|---|{'---|' * (len(sets) + 1)}"]
        for method in METHODS:
            mine = [line for line in lines if line["method"] == method and line["score"] == score]
            cells = [
                f"{100 * float(g['gain']):+.2f} ({100 * float(g['low']):+.2f} to {100 * float(g['high']):+.2f})"
                for g in mine
            ]
            mean = 100 * fmean(float(line["gain"]) for line in mine)
            text.append(f"| {method} | {' | '.join(cells)} | {mean:+.2f} |")
        best = [line for line in lines if line["method"] == "soft" and line["score"] == score]
        singles = ", ".join(f"{line['set']} {100 * float(line['single']):.2f}" for line in best)
        text += ["", f"Best single trial: {singles}.", ""]
    soft = fmean(float(line["gain"]) for line in lines if line["method"] == "soft" and line["score"] == "accuracy")
    word = "beats" if soft > 0 else "does not beat"
    text += [f"The plain mean of probabilities (soft) {word} the best single trial in the mean over the sets: "
             f"{100 * soft:+.2f} points of accuracy.", ""]  # fmt: skip
    return "\n".join(text)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "bench_ensemble", help="folder of the runs")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of results.csv and results.md")
    parser.add_argument("--trials", type=int, default=10, help="trials of each search")
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), help="sets")
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the real data are not at {DATA}; docs/ensemble.md says which sets these are")
    lines = [line for name in given.only for line in measure(name, given.trials, given.work.absolute())]
    given.output.mkdir(parents=True, exist_ok=True)
    with (given.output / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    page = summary(lines, given.trials)
    (given.output / "results.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
