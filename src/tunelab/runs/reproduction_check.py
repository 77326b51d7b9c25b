"""Compare a reproduction with its run: the same results to the bit, or as near as another seed would be; and which
circumstances (data, weights, code, versions, machine) changed.  Pure.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

Manifest = Mapping[str, Any]
RESULT_NAMES = {"weights_sha256": "the weights", "predictions_sha256": "the predictions"}
MIN_SEEDS = 3  # with fewer a spread says nothing


@dataclass(frozen=True)
class SeedInterval:
    """Where one more run with another seed would land.

    Attributes:
        low, high: Bounds of a 95 % prediction interval for a single run.
        seeds: Runs it rests on.
    """

    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class ScoreComparison:
    """One score of both runs.

    Attributes:
        spread: None where too few seeds are known.
    """

    name: str
    then: float | None
    now: float | None
    spread: SeedInterval | None = None

    @property
    def same(self) -> bool:
        """Whether not a bit differs; two scores that are no number are the same."""
        return self.then == self.now

    @property
    def inside(self) -> bool | None:
        """Whether the new score lies where another seed would; None where no spread is known."""
        if self.spread is None:
            return None
        return self.now is not None and self.spread.low <= self.now <= self.spread.high


@dataclass(frozen=True)
class ReproductionResult:
    """What a repetition proved.

    Attributes:
        identical: Whether every result that both manifests know is equal to the last bit.
        differing: What is not, in words.
        scores: Every score that both have.
    """

    identical: bool
    differing: list[str]
    scores: list[ScoreComparison]


def compare_runs(then: Manifest, now: Manifest, seeds: Sequence[Manifest] = ()) -> ReproductionResult:
    """Hold a repetition against the run.

    Args:
        then: The manifest of the run.
        now: The manifest of the repetition.
        seeds: Cards of runs with the same settings and other seeds.
    """
    differing = []
    if then.get("status") != now.get("status"):
        differing.append(f"it ended {now.get('status')} ({now.get('reason')}), the run {then.get('status')}")
    before, after = then.get("results") or {}, now.get("results") or {}
    known = [name for name in RESULT_NAMES if before.get(name) and after.get(name)]
    differing += [f"{RESULT_NAMES[name]} differ" for name in known if before[name] != after[name]]
    best = [manifest.get("best") or {} for manifest in (then, now)]
    if best[0].get("step") != best[1].get("step"):
        differing.append(f"the best checkpoint is of step {best[1].get('step')}, it was of step {best[0].get('step')}")
    old, new = manifest_scores(then), manifest_scores(now)
    others = [manifest_scores(manifest) for manifest in [then, *seeds]] if seeds else []
    lines = [
        ScoreComparison(
            name, old[name], new[name], seed_interval([other[name] for other in others if other.get(name) is not None])
        )
        for name in old
        if name in new
    ]
    differing += [f"{line.name} differs" for line in lines if not line.same]
    proven = bool(known or lines) or then.get("status") == now.get("status") == "diverged"
    if not proven:
        differing.append("the manifests share no result, so nothing is proven")
    return ReproductionResult(not differing, differing, lines)


def manifest_scores(manifest: Manifest) -> dict[str, float | None]:
    """The scores of a manifest by flat name; None where one is no number."""
    best = manifest.get("best") or {}
    table = manifest.get("scores") or {}
    found = {f"{split}/{name}": value for split, scores in table.items() for name, value in scores.items()}
    return ({f"best {best['monitor']}": best["value"]} if "monitor" in best else {}) | found


def seed_interval(values: Sequence[float | None]) -> SeedInterval | None:
    """Where one more run would land with 95 % probability, if scores are normal over seeds (Student's t).

    Returns:
        None below `LEAST_SEEDS` values.
    """
    known = [float(value) for value in values if value is not None and isfinite(value)]
    if len(known) < MIN_SEEDS:
        return None
    half = float(stats.t.ppf(0.975, len(known) - 1)) * stdev(known) * sqrt(1 + 1 / len(known))
    return SeedInterval(mean(known) - half, mean(known) + half, len(known))


def difference_lines(verdict: ReproductionResult) -> list[str]:
    """What is said of each score that is not the same."""
    found = []
    for line in verdict.scores:
        if line.same:
            continue
        words = f"{line.name}: {format_score(line.then)} then, {format_score(line.now)} now"
        if line.spread is not None:
            bounds = f"{line.spread.low:.4g} to {line.spread.high:.4g} over {line.spread.seeds} seeds"
            words += f", {'inside' if line.inside else 'OUTSIDE'} the seed spread ({bounds})"
        found.append(words)
    return found


def format_score(value: float | None) -> str:
    """A score with enough digits to see what differs."""
    return "no number" if value is None else f"{value:.6g}"


MAX_PACKAGES = 8  # packages named in one line; the rest is counted
MAIN_PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "numpy",
    "peft",
    "torchmetrics",
)  # named before others


def circumstance_changes(then: Manifest, now: Manifest) -> list[str]:
    """One line for each circumstance in which two manifests differ; what a manifest does not know is passed over."""
    return [
        *data_changes(then, now),
        *weight_changes(then, now),
        *code_changes(then, now),
        *version_changes(then, now),
    ] + [
        f"machine changed: {name} was {before}, is {after}"
        for name, before, after in machine_facts(then, now)
        if before != after and before is not None and after is not None
    ]


def data_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Files of records that hold something else."""
    before, after = data_digests(then), data_digests(now)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            yield f"data changed: {name} had sha256 {before[name][:12]}, has {after[name][:12]}"


def data_digests(manifest: Manifest) -> dict[str, str]:
    """sha256 of the files of a run, by name."""
    return dict((manifest.get("data") or {}).get("files") or {})


def weight_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """A base model or tokenizer that is another one."""
    before, after = then.get("model") or {}, now.get("model") or {}
    names = {"sha256": "base weights", "tokenizer_sha256": "tokenizer", "revision": "hub revision of the base model"}
    for name, words in names.items():
        if before.get(name) and after.get(name) and before[name] != after[name]:
            yield f"{words} changed: {before.get('path')} had {before[name][:12]}, has {after[name][:12]}"


def code_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Source files of this package that are others, and how to get the old ones."""
    if not then.get("code_sha256") or then["code_sha256"] == now.get("code_sha256"):
        return
    git = then.get("git") or {}
    if not git.get("commit"):
        yield "code changed: the manifest names no commit, so the old code must be found by hand"
        return
    way = f"git checkout {git['commit'][:12]}"
    if git.get("diff"):
        whole = len(git["diff"].encode()) == git.get("diff_bytes")
        way += " and apply git.diff of the manifest" if whole else "; the changes on top were too long to be kept whole"
    if git.get("untracked"):
        way += f"; {len(git['untracked'])} files were not under version control"
    yield f"code changed: the old one is {way}"


def version_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Python and packages with another version; what was added since is no difference."""
    if then.get("python") != now.get("python"):
        yield f"version changed: Python was {then.get('python')}, is {now.get('python')}"
    before, after = then.get("packages") or {}, now.get("packages") or {}
    changed = [name for name in before if before[name] != after.get(name) and name != "tunelab"]
    changed.sort(key=lambda name: (name not in MAIN_PACKAGES, name))
    if changed:
        named = [f"{name} was {before[name]}, is {after.get(name, 'gone')}" for name in changed[:MAX_PACKAGES]]
        more = f"; and {len(changed) - MAX_PACKAGES} more" if len(changed) > MAX_PACKAGES else ""
        yield f"version changed: {'; '.join(named)}{more}"


def machine_facts(then: Manifest, now: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """What of a machine changes the last digits: name, then, now."""
    old, new = then.get("hardware") or {}, now.get("hardware") or {}
    yield "processor", old.get("processor"), new.get("processor")
    yield "GPUs", gpu_names(old), gpu_names(new)
    old, new = then.get("numerics") or {}, now.get("numerics") or {}
    for name in ("threads", "deterministic", "float32_matmul_precision", "cuda", "cudnn"):
        yield name, old.get(name), new.get(name)


def gpu_names(hardware: Mapping[str, Any]) -> list[Any] | None:
    """The GPUs of a machine; None where the manifest does not say."""
    return None if "gpus" not in hardware else [gpu.get("name") for gpu in hardware["gpus"]]


IGNORED_SETTINGS = (
    "seed",
    "name",
    "logger",
    "trial",
    "resume",
    "save",
    "search",
    "test",
)  # settings that change no score


def runs_with_other_seeds(manifest: Manifest, around: Path) -> list[dict[str, Any]]:
    """Cards of finished runs beside a run, trained with its settings and its data but another seed.

    Args:
        manifest: Of the run.
        around: A folder that holds run folders.
    """
    found = []
    for file in sorted(around.glob("*/run.json")):
        try:
            other = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a run that is being written; it would not be finished
        if other.get("status") in ("finished", "early-stopped") and same_experiment(manifest, other):
            found.append(other)
    return found


def same_experiment(manifest: Manifest, other: Manifest) -> bool:
    """Whether two runs are the same experiment with two seeds."""
    one, two = (
        {name: value for name, value in (found.get("config") or {}).items() if name not in IGNORED_SETTINGS}
        for found in (manifest, other)
    )
    files = [(found.get("data") or {}).get("files") for found in (manifest, other)]
    seeds = [(found.get("config") or {}).get("seed") for found in (manifest, other)]
    return one == two and files[0] == files[1] and seeds[0] != seeds[1]
