"""Compare a reproduction with its run: are the results bit-identical, or as near as another seed would be, and which
circumstances (data, weights, code, versions, machine) have changed?  Pure.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from tunelab.language.translation import message, translate
from tunelab.runs.entry_script import recorded_sha256
from tunelab.runs.run_status import COMPLETE_STATUSES

Manifest = Mapping[str, Any]
RESULT_NAMES = {"weights_sha256": message("the weights"), "predictions_sha256": message("the predictions")}
MIN_SEEDS = 3  # fewer do not estimate the variation


@dataclass(frozen=True)
class SeedInterval:
    """The 95 % prediction interval of a score for one more run with another seed.

    Attributes:
        low, high: Its bounds.
        seeds: Number of runs that it is estimated from.
    """

    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class ScoreComparison:
    """One score of a run and of its reproduction.

    Attributes:
        name: Flat name of the score.
        original: Its value in the run; None where it is not finite.
        reproduced: Its value in the reproduction.
        seed_interval: None where there are too few seeds.
    """

    name: str
    original: float | None
    reproduced: float | None
    seed_interval: SeedInterval | None = None

    @property
    def same(self) -> bool:
        """Whether both are bit-identical; two scores that are not finite are the same."""
        return self.original == self.reproduced

    @property
    def within_seed_interval(self) -> bool | None:
        """Whether the reproduced score lies in the seed interval; None where there is none."""
        if self.seed_interval is None:
            return None
        return self.reproduced is not None and self.seed_interval.low <= self.reproduced <= self.seed_interval.high


@dataclass(frozen=True)
class ReproductionResult:
    """The comparison of a reproduction with its run.

    Attributes:
        identical: Whether every result that both manifests hold is bit-identical.
        differences: A line for each result that is not.
        scores: Every score that both have.
    """

    identical: bool
    differences: list[str]
    scores: list[ScoreComparison]


def compare_runs(original: Manifest, reproduced: Manifest, seeds: Sequence[Manifest] = ()) -> ReproductionResult:
    """The comparison of a reproduction with its run.

    Args:
        original: The manifest of the run.
        reproduced: The manifest of the reproduction.
        seeds: Manifests of runs with the same settings and other seeds.
    """
    differences, both = list[str](), (original, reproduced)
    statuses = [manifest.get("status") for manifest in both]
    if statuses[0] != statuses[1]:
        differences.append(
            translate(
                "it ended {status} ({reason}), the run {before}",
                status=statuses[1],
                reason=reproduced.get("reason"),
                before=statuses[0],
            )
        )
    digests = [manifest.get("results") or {} for manifest in both]
    compared = [name for name in RESULT_NAMES if all(results.get(name) for results in digests)]
    differences += [
        translate("{results} differ", results=RESULT_NAMES[name])
        for name in compared
        if digests[0][name] != digests[1][name]
    ]
    steps = [(manifest.get("best") or {}).get("step") for manifest in both]
    if steps[0] != steps[1]:
        differences.append(
            translate("the best checkpoint is of step {step}, it was of step {before}", step=steps[1], before=steps[0])
        )
    old, new = (manifest_scores(manifest) for manifest in both)
    others = [manifest_scores(manifest) for manifest in [original, *seeds]] if seeds else []
    scores = [
        ScoreComparison(name, old[name], new[name], seed_interval([other.get(name) for other in others]))
        for name in old
        if name in new
    ]
    differences += [translate("{name} differs", name=score.name) for score in scores if not score.same]
    if not (compared or scores or statuses == ["diverged", "diverged"]):
        differences.append(translate("the manifests share no result, so nothing is proven"))
    return ReproductionResult(not differences, differences, scores)


def manifest_scores(manifest: Manifest) -> dict[str, float | None]:
    """The scores of a manifest by flat name; None where one is not finite."""
    best = manifest.get("best") or {}
    by_split = manifest.get("scores") or {}
    flat = {f"{split}/{name}": value for split, scores in by_split.items() for name, value in scores.items()}
    return ({f"best {best['monitor']}": best["value"]} if "monitor" in best else {}) | flat


def seed_interval(values: Sequence[float | None]) -> SeedInterval | None:
    """The 95 % prediction interval for one more run, if scores are normal over seeds (Student's t).

    Returns:
        None below `MIN_SEEDS` values.
    """
    finite = [float(value) for value in values if value is not None and isfinite(value)]
    if len(finite) < MIN_SEEDS:
        return None
    scale = stdev(finite) * sqrt(1 + 1 / len(finite))
    if scale == 0:  # the interval of SciPy is NaN then
        return SeedInterval(finite[0], finite[0], len(finite))
    low, high = stats.t.interval(0.95, len(finite) - 1, loc=mean(finite), scale=scale)
    return SeedInterval(float(low), float(high), len(finite))


def difference_lines(result: ReproductionResult) -> list[str]:
    """A line for each score that differs."""
    lines = []
    for score in result.scores:
        if score.same:
            continue
        line = translate(
            "{name}: {original} then, {reproduced} now",
            name=score.name,
            original=format_score(score.original),
            reproduced=format_score(score.reproduced),
        )
        if (interval := score.seed_interval) is not None:
            place = translate("inside" if score.within_seed_interval else "OUTSIDE")
            bounds = translate(
                "{low:.4g} to {high:.4g} over {seeds} [seed|seeds]",
                low=interval.low,
                high=interval.high,
                seeds=interval.seeds,
            )
            line += translate(", {place} the seed spread ({bounds})", place=place, bounds=bounds)
        lines.append(line)
    return lines


def format_score(value: float | None) -> str:
    """A score with six digits."""
    return translate("no number") if value is None else f"{value:.6g}"


MAX_PACKAGES = 8  # packages listed in one line; the rest is counted
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
    """One line for each circumstance in which two manifests differ; what one of them lacks is skipped."""
    return [
        *data_changes(then, now),
        *weight_changes(then, now),
        *code_changes(then, now),
        *version_changes(then, now),
    ] + [
        translate("machine changed: {name} was {before}, is {after}", name=name, before=before, after=after)
        for name, before, after in machine_facts(then, now)
        if before != after and before is not None and after is not None
    ]


def data_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Lines for data files with another content."""
    before, after = data_digests(then), data_digests(now)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            yield translate(
                "data changed: {name} had sha256 {before}, has {after}",
                name=name,
                before=before[name][:12],
                after=after[name][:12],
            )


def data_digests(manifest: Manifest) -> dict[str, str]:
    """sha256 of the files of a run, by name."""
    return dict((manifest.get("data") or {}).get("files") or {})


def weight_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Lines for another base model or tokenizer."""
    before, after = then.get("model") or {}, now.get("model") or {}
    names = {
        "sha256": message("base weights"),
        "tokenizer_sha256": message("tokenizer"),
        "revision": message("hub revision of the base model"),
    }
    for name, words in names.items():
        if before.get(name) and after.get(name) and before[name] != after[name]:
            yield translate(
                "{what} changed: {path} had {before}, has {after}",
                what=words,
                path=before.get("path"),
                before=before[name][:12],
                after=after[name][:12],
            )


def code_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Lines for another script that started the run and other source files of this package, and how to get the old."""
    if "script" in then and "script" in now:
        before, after = (recorded_sha256(card["script"])[:12] for card in (then, now))
        if before != after:
            yield translate("script changed: its sha256 was {before}, is {after}", before=before, after=after)
    if not then.get("code_sha256") or then["code_sha256"] == now.get("code_sha256"):
        return
    git = then.get("git") or {}
    if not git.get("commit"):
        yield translate("code changed: the manifest names no commit, so the old code must be found by hand")
        return
    way = f"git checkout {git['commit'][:12]}"
    if git.get("diff"):
        whole = len(git["diff"].encode()) == git.get("diff_bytes")
        way += (
            translate(" and apply git.diff of the manifest")
            if whole
            else translate("; the changes on top were too long to be kept whole")
        )
    if git.get("untracked"):
        way += translate("; not under version control: {count} of its files", count=len(git["untracked"]))
    yield translate("code changed: the old one is {way}", way=way)


def version_changes(then: Manifest, now: Manifest) -> Iterator[str]:
    """Lines for other versions of Python and packages; new packages do not count."""
    if then.get("python") != now.get("python"):
        yield translate(
            "version changed: Python was {before}, is {now}", before=then.get("python"), now=now.get("python")
        )
    before, after = then.get("packages") or {}, now.get("packages") or {}
    changed = [name for name in before if before[name] != after.get(name) and name != "tunelab"]
    changed.sort(key=lambda name: (name not in MAIN_PACKAGES, name))
    if changed:
        listed = [
            translate(
                "{name} was {before}, is {now}", name=name, before=before[name], now=after.get(name, translate("gone"))
            )
            for name in changed[:MAX_PACKAGES]
        ]
        more = translate("; and {count} more", count=len(changed) - MAX_PACKAGES) if len(changed) > MAX_PACKAGES else ""
        yield translate("version changed: {names}{more}", names="; ".join(listed), more=more)


def machine_facts(then: Manifest, now: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """The facts of a machine that change the last digits: name, then, now."""
    old, new = then.get("hardware") or {}, now.get("hardware") or {}
    yield "processor", old.get("processor"), new.get("processor")
    yield "GPUs", gpu_names(old), gpu_names(new)
    old, new = then.get("numerics") or {}, now.get("numerics") or {}
    for name in ("threads", "deterministic", "float32_matmul_precision", "cuda", "cudnn"):
        yield name, old.get(name), new.get(name)


def gpu_names(hardware: Mapping[str, Any]) -> list[Any] | None:
    """Names of the GPUs of a machine; None where the manifest lacks them."""
    return None if "gpus" not in hardware else [gpu.get("name") for gpu in hardware["gpus"]]


IGNORED_SETTINGS = (
    "seed",
    "name",
    "lang",
    "logger",
    "trial",
    "resume",
    "save",
    "search",
    "test",
)  # settings that change no score


def runs_with_other_seeds(manifest: Manifest, around: Path) -> list[dict[str, Any]]:
    """Manifests of finished runs with the settings and data of a run and another seed.

    Args:
        manifest: The manifest of the run.
        around: A folder of run directories.
    """
    others = []
    for file in sorted(around.glob("*/run.json")):
        try:
            other = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # being written, so not finished
        if other.get("status") in COMPLETE_STATUSES and same_experiment(manifest, other):
            others.append(other)
    return others


def same_experiment(manifest: Manifest, other: Manifest) -> bool:
    """Whether two runs are the same experiment with two seeds."""
    one, two = (
        {name: value for name, value in (each.get("config") or {}).items() if name not in IGNORED_SETTINGS}
        for each in (manifest, other)
    )
    files = [(each.get("data") or {}).get("files") for each in (manifest, other)]
    seeds = [(each.get("config") or {}).get("seed") for each in (manifest, other)]
    return one == two and files[0] == files[1] and seeds[0] != seeds[1]
