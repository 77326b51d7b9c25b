"""What the data and the machine do to a run: labels, leaks, cut rows, padding, memory.  Pure."""

from collections.abc import Iterator
from statistics import median

from tunelab.doctor.evidence import Evidence, Finding

UNEVEN = 10.0  # rows of the commonest label for each of the rarest
EVEN = 0.95  # macro recall over accuracy, from which rare labels fare like common ones
LEAKED = 0.05  # share of validation or test rows
CUT = 0.1  # share of training rows
PADDED = 0.4  # share of positions
LEAST_POINTS = 8  # of memory, over which growth is judged
GROWN = 1.3  # memory now over memory once everything was loaded
MEGABYTES = 256.0  # growth that is worth a word


def imbalanced(run: Evidence) -> Iterator[Finding]:
    """Some labels are far rarer than others, the loss does nothing about it, and they are found less often."""
    counts = run.data.get("labels", {}).get("train", {})
    if len(counts) < 2 or run.setting("data.multilabel") or run.setting("data.class_weights") not in (None, "none"):
        return
    recall, right = run.values("val/recall"), run.values("val/accuracy")
    if recall and right and recall[-1] > EVEN * right[-1]:
        return  # labels are found equally often, the rare ones too
    common, rare = (pick(counts, key=lambda name: counts[name]) for pick in (max, min))
    ratio = counts[common] / max(1, counts[rare])
    if ratio >= UNEVEN:
        says = f"{counts[common]:,} training rows of {common!r} and {counts[rare]:,} of {rare!r}: {ratio:.3g} to 1"
        cure = "data.class_weights=balanced, monitor=val/f1 rather than accuracy, more rows of the rare labels"
        yield Finding("imbalanced_classes", says, "commonest over rarest label", ratio, UNEVEN, cure)


def leaks(run: Evidence) -> Iterator[Finding]:
    """Rows that are scored were learned."""
    for found in run.data.get("leaks", {}).get("exact", ()):
        earlier, later = found["splits"]
        share = found["rows"] / max(1, found["of"])
        if earlier == "train" and share > LEAKED:
            says = f"{found['rows']:,} of {found['of']:,} {later} rows stand in train too, so {later} scores flatter"
            cure = f"take these rows out of train, or let the {later} split be made from the training file"
            yield Finding("leaked_rows", says, f"share of {later} rows", share, LEAKED, cure)


def cut_rows(run: Evidence) -> Iterator[Finding]:
    """Much of the training data is shortened or left out."""
    counts = run.data.get("splits", {}).get("train", {})
    lost = counts.get("truncated", 0) + counts.get("dropped", 0)
    if counts.get("rows") and (share := lost / (counts["rows"] + counts.get("dropped", 0))) > CUT:
        says = f"{counts.get('truncated', 0):,} training rows are cut and {counts.get('dropped', 0):,} are dropped"
        cure = "raise data.max_tokens or model.context, or split long records; tunelab preview shows which"
        yield Finding("cut_rows", says, "share of training rows", share, CUT, cure)


def padding(run: Evidence) -> Iterator[Finding]:
    """Much of the arithmetic is spent on padding."""
    shares = run.values("train/padding_fraction")
    if shares and (share := median(shares)) > PADDED:
        says = f"{share:.0%} of all positions are padding"
        cure = (
            "lower micro_tokens, so that rows of like length share a pass, or a model that takes rows laid end to end"
        )
        yield Finding("padding", says, "median of train/padding_fraction", share, PADDED, cure)


def memory_leak(run: Evidence) -> Iterator[Finding]:
    """The memory of the process grows and grows."""
    held = run.values("train/memory_mb")
    if len(held) < LEAST_POINTS:
        return
    quarter = len(held) // 4
    parts = [median(held[place * quarter : (place + 1) * quarter]) for place in range(4)]
    grows = parts[0] < parts[1] < parts[2] < parts[3]
    if grows and parts[3] > GROWN * parts[1] and parts[3] - parts[1] > MEGABYTES:
        says = f"the process grew from {parts[1]:,.0f} to {parts[3]:,.0f} MB, and in every quarter of the run"
        cure = "look for a callback of your own that keeps tensors; lower data.in_memory and data.workers"
        yield Finding(
            "memory_leak", says, "memory in the last quarter over the second", parts[3] / parts[1], GROWN, cure
        )
