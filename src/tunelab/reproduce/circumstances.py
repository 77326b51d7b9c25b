"""What was different when a run was repeated: data, weights, code, versions, machine.  Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

Card = Mapping[str, Any]
SHOWN = 8  # packages named in one line; the rest is counted
OURS = ("torch", "lightning", "transformers", "tokenizers", "numpy", "peft", "torchmetrics")  # named before others


def differences(then: Card, now: Card) -> list[str]:
    """One line for each circumstance in which two cards differ; what a card does not know is passed over."""
    return [*of_data(then, now), *of_weights(then, now), *of_code(then, now), *of_versions(then, now)] + [
        f"machine changed: {name} was {before}, is {after}"
        for name, before, after in machine(then, now)
        if before != after and before is not None and after is not None
    ]


def of_data(then: Card, now: Card) -> Iterator[str]:
    """Files of records that hold something else."""
    before, after = files(then), files(now)
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            yield f"data changed: {name} had sha256 {before[name][:12]}, has {after[name][:12]}"


def files(card: Card) -> dict[str, str]:
    """sha256 of the files of a run, by name."""
    return dict((card.get("data") or {}).get("files") or {})


def of_weights(then: Card, now: Card) -> Iterator[str]:
    """A base model or tokenizer that is another one."""
    before, after = then.get("model") or {}, now.get("model") or {}
    names = {"sha256": "base weights", "tokenizer_sha256": "tokenizer", "revision": "hub revision of the base model"}
    for name, words in names.items():
        if before.get(name) and after.get(name) and before[name] != after[name]:
            yield f"{words} changed: {before.get('path')} had {before[name][:12]}, has {after[name][:12]}"


def of_code(then: Card, now: Card) -> Iterator[str]:
    """Source files of this package that are others, and how to get the old ones."""
    if not then.get("code_sha256") or then["code_sha256"] == now.get("code_sha256"):
        return
    git = then.get("git") or {}
    if not git.get("commit"):
        yield "code changed: the card names no commit, so the old code must be found by hand"
        return
    way = f"git checkout {git['commit'][:12]}"
    if git.get("diff"):
        whole = len(git["diff"].encode()) == git.get("diff_bytes")
        way += " and apply git.diff of the card" if whole else "; the changes on top were too long to be kept whole"
    if git.get("untracked"):
        way += f"; {len(git['untracked'])} files were not under version control"
    yield f"code changed: the old one is {way}"


def of_versions(then: Card, now: Card) -> Iterator[str]:
    """Python and packages with another version; what was added since is no difference."""
    if then.get("python") != now.get("python"):
        yield f"version changed: Python was {then.get('python')}, is {now.get('python')}"
    before, after = then.get("packages") or {}, now.get("packages") or {}
    changed = [name for name in before if before[name] != after.get(name) and name != "tunelab"]
    changed.sort(key=lambda name: (name not in OURS, name))
    if changed:
        named = [f"{name} was {before[name]}, is {after.get(name, 'gone')}" for name in changed[:SHOWN]]
        more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        yield f"version changed: {'; '.join(named)}{more}"


def machine(then: Card, now: Card) -> Iterator[tuple[str, Any, Any]]:
    """What of a machine changes the last digits: name, then, now."""
    old, new = then.get("hardware") or {}, now.get("hardware") or {}
    yield "processor", old.get("processor"), new.get("processor")
    yield "GPUs", gpu_names(old), gpu_names(new)
    old, new = then.get("numerics") or {}, now.get("numerics") or {}
    for name in ("threads", "deterministic", "float32_matmul_precision", "cuda", "cudnn"):
        yield name, old.get(name), new.get(name)


def gpu_names(hardware: Mapping[str, Any]) -> list[Any] | None:
    """The GPUs of a machine; None where the card does not say."""
    return None if "gpus" not in hardware else [gpu.get("name") for gpu in hardware["gpus"]]
