"""All that is wrong with a run, the gravest first.  Pure."""

from collections.abc import Callable, Iterator, Sequence

from tunelab.doctor import fit, rate, rows, steps
from tunelab.doctor.evidence import Evidence, Finding

CHECKS: dict[str, Callable[[Evidence], Iterator[Finding]]] = {
    "non_finite": steps.non_finite,
    "exploding_gradients": steps.exploding,
    "vanishing_gradients": steps.vanishing,
    "rate_too_high": rate.too_high,
    "rate_too_low": rate.too_low,
    "warm_up_unfinished": rate.warm_up_unfinished,
    "loss_spikes": steps.spikes,
    "dead_units": steps.dead_units,
    "majority_class": fit.majority_class,
    "mean_only": fit.mean_only,
    "imbalanced_classes": rows.imbalanced,
    "leaked_rows": rows.leaks,
    "over_fitted": fit.over_fitted,
    "under_trained": rate.under_trained,
    "noisy_validation": fit.noisy_validation,
    "cut_rows": rows.cut_rows,
    "padding": rows.padding,
    "memory_leak": rows.memory_leak,
}


def examine(run: Evidence) -> list[Finding]:
    """Every finding on a run, in the order of `CHECKS`."""
    return [finding for check in CHECKS.values() for finding in check(run)]


def in_words(findings: Sequence[Finding]) -> list[str]:
    """A finding in two lines: what is seen, and what to try."""
    return [line for found in findings for line in (f"{found.verdict}: {found.says}", f"    try: {found.attempt}")] or [
        "nothing is wrong that these checks know of"
    ]
