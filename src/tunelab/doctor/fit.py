"""What validation says: over-fitting, noise, models that answer the same to everything.  Pure."""

from collections.abc import Iterator
from statistics import mean

from tunelab.doctor.evidence import Evidence, Finding, end, noise

RISEN = 1.1  # last validation loss over the best
VISIBLE = 0.02  # rise over the first training loss: of next to nothing, a tenth more is nothing
LEARNED = 0.95  # training loss now over that of the best epoch: it still falls
NOISE_POINTS = 6  # validations before their noise can be told from their course
WIDE = 0.02  # noise over the value itself
CLOSE = 0.005  # above what a constant answer scores
EXPLAINED = 0.02  # share of the variance


def over_fitted(run: Evidence) -> Iterator[Finding]:
    """Since some epoch the model learns training rows at the price of all others."""
    found, losses = run.points("val/loss"), run.values("train/loss")
    if len(found) < 3 or not losses:
        return
    step, best = min(found, key=lambda point: point[1])
    last = found[-1][1]
    learned = run.points("train/plain_loss") or run.points("train/loss")
    then = next((value for at, value in learned if at >= step), learned[-1][1])
    falls = end([value for _, value in learned]) < LEARNED * then
    if best > 0 and last > RISEN * best and last - best > VISIBLE * losses[0] and falls and step < found[-2][0]:
        says = (
            f"over-fitted since epoch {run.epoch(step)}: val/loss was {best:.3g} there and is {last:.3g} now, "
            "while the loss of the training rows went on falling"
        )
        cure = (
            "fewer epochs or early stopping, more rows, regularization=strong, adapter=lora, a lower lr; "
            "the best checkpoint is from before where monitor=val/loss"
        )
        yield Finding("over_fitted", says, "last val/loss over the best", last / best, RISEN, cure)


def noisy_validation(run: Evidence) -> Iterator[Finding]:
    """Validations jump about by more than they differ, so which checkpoint is best is chance."""
    found = run.values(run.monitor)
    if len(found) < NOISE_POINTS:
        return
    jumps, half = noise(found), len(found) // 2
    gain = abs(mean(found[half:]) - mean(found[:half]))
    if jumps > gain and jumps > WIDE * abs(mean(found)):
        rows = run.data.get("splits", {}).get("validation", {}).get("rows")
        says = (
            f"{run.monitor} jumps by {jumps:.3g} from one validation to the next, and between the first and the second "
            f"half of training it moved by {gain:.3g}" + (f"; it is taken on {rows:,} rows" if rows else "")
        )
        cure = "more validation rows, monitor=val/loss (steadier than shares), several seeds before any comparison"
        yield Finding("noisy_validation", says, "difference over the noise", gain / jumps, 1.0, cure)


def majority_class(run: Evidence) -> Iterator[Finding]:
    """Every text gets the same label, or none where it might have several."""
    labels = run.data.get("labels", {})
    counts = labels.get("validation", {})
    recall, right = run.values("val/recall"), run.values("val/accuracy")
    cure = (
        "raise or lower lr tenfold, data.class_weights=balanced, more epochs; check that data.text is the right "
        "column and that data.label can be told from it"
    )
    if run.setting("data.multilabel"):
        if len(recall) >= 2 and max(recall[-2:]) == 0:
            says = "no label is right for any text: macro recall is 0"
            tried = f"{cure}; or a lower data.threshold"
            yield Finding("majority_class", says, "macro recall", 0.0, 0.0, tried)
        return
    if len(counts) < 2 or len(recall) < 2 or len(right) < 2:
        return
    bound = 1 / len(counts) + CLOSE
    shares = {name: count / sum(counts.values()) for name, count in counts.items()}
    label = min(shares, key=lambda name: abs(shares[name] - right[-1]))
    if max(recall[-2:]) <= bound and abs(shares[label] - right[-1]) < CLOSE:
        says = (
            f"stuck at one class: accuracy {right[-1]:.1%} is the share of {label!r}, recall {recall[-1]:.3g} of chance"
        )
        yield Finding("majority_class", says, "macro recall", recall[-1], bound, cure)


def mean_only(run: Evidence) -> Iterator[Finding]:
    """The numbers that are predicted explain nothing: one number for all would do as well."""
    found = run.values("val/r2")
    if len(found) >= 2 and max(found[-2:]) < EXPLAINED:
        says = f"val/r2 is {found[-1]:.3g}: predicting the mean of the training rows for everything does as well"
        cure = (
            "raise lr (or lower it, if the loss rises), more epochs; check that data.text says anything of data.target"
        )
        yield Finding("mean_only", says, "val/r2", found[-1], EXPLAINED, cure)
