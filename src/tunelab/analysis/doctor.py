"""The doctor: every check on a run, the gravest first, each with its threshold and a remedy.  Pure."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import mean, median

from tunelab.analysis.run_signals import Finding, RunSignals, early_median, late_median, layer_name, noise_level
from tunelab.language.translation import translate

MIN_SPIKES = 2  # one may be one bad row
MIN_LAYER_POINTS = 3  # logged steps before a layer is assessed
VANISHING_RATIO = 1e-4  # of the gradient of the layer that has most
EXPLODING_NORM = 100.0  # gradient norm, where 0.1 to 10 is usual for a mean loss
DEAD_SHARE = 0.5  # share of a layer's units


def loss_spikes(run: RunSignals) -> Iterator[Finding]:
    """Single steps whose loss stands far above its surroundings."""
    counts, heights = run.values("train/spikes"), run.values("train/spike_height")
    if counts and counts[-1] >= MIN_SPIKES:
        says = translate(
            "{count:.0f} loss [spike|spikes], the highest {height:.3g} times the losses before it",
            count=counts[-1],
            height=max(heights, default=0),
        )
        cure = translate(
            "inspect the rows of those steps, lower trainer.gradient_clip_val or lr, raise batch_size; "
            "optimizer.betas=[0.9,0.95] forgets a spike sooner"
        )
        yield Finding("loss_spikes", says, "train/spikes", counts[-1], MIN_SPIKES, cure)


def non_finite_steps(run: RunSignals) -> Iterator[Finding]:
    """Steps that were left out, or one that ended the run."""
    skipped = run.values("train/skipped_steps")
    cure = translate(
        "lower lr, lengthen scheduler.warmup, look for broken rows, and train in 32 bit (trainer.precision=32-true)"
    )
    if run.status == "diverged":
        yield Finding("non_finite", run.reason.split(". ")[0], "steps that were not finite", 1.0, 1.0, cure)
    elif skipped and skipped[-1] > 0:
        says = translate(
            "{count:.0f} [step was|steps were] skipped because loss or gradient was not finite", count=skipped[-1]
        )
        yield Finding("non_finite", says, "train/skipped_steps", skipped[-1], 1.0, cure)


def vanishing_gradients(run: RunSignals) -> Iterator[Finding]:
    """Layers that next to no gradient reaches."""
    norms = {
        part: median(values)
        for part, values in run.layer_values("grad_norm").items()
        if len(values) >= MIN_LAYER_POINTS
    }
    most = max(norms.values(), default=0.0)
    if not most or run.config_value("adapter.unfreeze_every") or run.config_value("adapter.unfreeze_at"):
        return  # those held back have no gradient on purpose
    faint = {part: norm / most for part, norm in norms.items() if part.isdigit() and norm < VANISHING_RATIO * most}
    if faint:
        lowest = min(faint, key=lambda part: faint[part])
        named = ", ".join(faint)
        says = translate(
            "the gradient of layer {layers} is close to zero: in layer {lowest} it is {share:.1e} of that of the part "
            "with most",
            layers=named,
            lowest=lowest,
            share=faint[lowest],
        )
        cure = translate(
            "normalise and keep residual paths (model.normalisation), take another model.activation than sigmoid or "
            "tanh, a larger model.initial_std, or fewer layers; optimizer=adamw makes up for some of it"
        )
        yield Finding(
            "vanishing_gradients", says, "gradient norm over the largest", faint[lowest], VANISHING_RATIO, cure
        )


def exploding_gradients(run: RunSignals) -> Iterator[Finding]:
    """Gradients far beyond the clipping threshold."""
    whole = run.values("train/grad_norm")
    if len(whole) < MIN_LAYER_POINTS or median(whole) <= EXPLODING_NORM:
        return
    norms = {part: median(values) for part, values in run.layer_values("grad_norm").items() if values}
    says = translate("the gradient norm is {norm:.3g}; clipping leaves its direction only", norm=median(whole))
    if norms:
        says = translate(
            "the gradient norm is {norm:.3g}, most of it in {layer}; clipping leaves its direction only",
            norm=median(whole),
            layer=layer_name(max(norms, key=lambda part: norms[part])),
        )
    cure = translate("a smaller model.initial_std, normalisation, a lower lr with a longer scheduler.warmup")
    yield Finding("exploding_gradients", says, "median of train/grad_norm", median(whole), EXPLODING_NORM, cure)


def dead_units(run: RunSignals) -> Iterator[Finding]:
    """Layers most of whose units are zero for every token."""
    shares = {
        part: min(values[-3:])
        for part, values in run.layer_values("dead_units").items()
        if len(values) >= MIN_LAYER_POINTS
    }
    worst = max(shares, key=lambda part: shares[part], default=None)
    if worst is not None and shares[worst] > DEAD_SHARE:
        layer = layer_name(worst)
        says = translate("{share:.0%} of the units of {layer} are never active", share=shares[worst], layer=layer)
        cure = translate(
            "lower lr or lengthen scheduler.warmup, model.activation=silu instead of relu, a smaller weight_decay"
        )
        yield Finding("dead_units", says, f"layers/{worst}/dead_units", shares[worst], DEAD_SHARE, cure)


MIN_CURVE_POINTS = 5  # of a curve before there is a finding
MIN_TREND_POINTS = 10  # of the loss before its trend is assessed: the middle of a tenth needs one
RISEN_LOSS_RATIO = 1.02  # end over start from which the loss has risen
LOST_GAIN_SHARE = 0.25  # of all that was gained, lost again
CLEAR_NOISE_FACTOR = 2.5  # times its own error by noise, that a difference between two middles must be
LARGE_UPDATE = (
    0.1  # of the size of all weights in a single step: ten of these make another network; 0.001 is the usual advice
)
LARGE_ADAPTER_UPDATE = 0.5  # the same of an adapter, half of which begins at zero
WHOLE_MODEL_KINDS = ("full", "top_layers")  # kinds of training that go on from weights of some size
TINY_UPDATE = 1e-5  # of a weight's size in one step: a thousand steps move it by a hundredth
FALLEN_LOSS_SHARE = 0.02  # share of the first loss
MIN_VALIDATIONS = 3  # of a run before its end can be called steep
STEEP_GAIN_RATIO = 0.75  # of what a straight line gains: share of all that was gained over share of the steps
WORTHWHILE_GAIN = 0.03  # of the validation loss itself


def learning_rate_too_high(run: RunSignals) -> Iterator[Finding]:
    """The loss rises, or returns from a minimum; or updates are large against the weights."""
    losses, moves = run.values("train/loss"), run.values("train/update_ratio")
    if len(losses) < MIN_CURVE_POINTS:
        return
    cure = translate(
        "lower lr to a third or a tenth; then a longer scheduler.warmup and a lower trainer.gradient_clip_val"
    )
    if moves and median(moves) < TINY_UPDATE:
        return  # weights that stand still are not moved too far
    first, last = early_median(losses), late_median(losses)
    tenth, fifth, long = len(losses) // 10, len(losses) // 5, len(losses) >= MIN_TREND_POINTS
    if long and last > RISEN_LOSS_RATIO * first and exceeds_noise(last - first, losses, tenth, fifth):
        says = translate("the training loss rose from {first:.3g} to {last:.3g}", first=first, last=last)
        yield Finding(
            "rate_too_high", says, "loss at the end over loss at the start", last / first, RISEN_LOSS_RATIO, cure
        )
    elif (
        long
        and exceeds_noise(first - (best := lowest_median(losses)), losses, tenth, fifth)
        and exceeds_noise(last - best, losses, fifth, fifth)
        and (back := (last - best) / (first - best)) > LOST_GAIN_SHARE
    ):
        values = {"first": first, "best": best, "last": last}
        says = translate("the training loss fell from {first:.3g} to {best:.3g} and came back to {last:.3g}", **values)
        yield Finding("rate_too_high", says, "share of the gain that was lost again", back, LOST_GAIN_SHARE, cure)
    elif moves and (move := max(moves)) > (
        far := LARGE_UPDATE if run.config_value("adapter.kind") in WHOLE_MODEL_KINDS else LARGE_ADAPTER_UPDATE
    ):
        says = translate(
            "a single step changed the weights by {share:.0%} of their size, where 0.1 % is usual", share=move
        )
        yield Finding("rate_too_high", says, "largest train/update_ratio", move, far, cure)


def learning_rate_too_low(run: RunSignals) -> Iterator[Finding]:
    """The weights hardly move, and the loss hardly falls."""
    losses, moves = run.values("train/loss"), run.values("train/update_ratio")
    if len(losses) < MIN_CURVE_POINTS or not moves:
        return
    half = len(losses) // 2
    first, last = median(losses[:half]), median(losses[half:])
    move, fallen = median(moves), 1 - last / first if first else 1.0
    if move < TINY_UPDATE and (
        abs(fallen) < FALLEN_LOSS_SHARE or not exceeds_noise(abs(first - last), losses, half, half)
    ):
        says = translate(
            "a step changes the weights by {share:.1e} of their size, and the loss fell by {fallen:.1%}",
            share=move,
            fallen=fallen,
        )
        cure = translate("raise lr tenfold, until the loss falls within the first epoch")
        yield Finding("rate_too_low", says, "median of train/update_ratio", move, TINY_UPDATE, cure)


def under_trained(run: RunSignals) -> Iterator[Finding]:
    """The validation loss was still falling fast when training ended."""
    points, losses = run.points("val/loss"), run.values("train/loss")
    if not run.finished or len(points) < MIN_VALIDATIONS or not losses:
        return
    (step, before), (end, last) = points[-1 - max(1, len(points) // 5)], points[-1]
    newest, gained, part = before - last, max(losses[0], points[0][1]) - last, (end - step) / (end + 1)
    threshold = STEEP_GAIN_RATIO * part
    if gained > 0 and newest / gained > threshold and newest > WORTHWHILE_GAIN * last:
        says = translate(
            "the last {part:.0%} of the steps brought {share:.0%} of the whole improvement (val/loss {loss:.3g})",
            part=part,
            share=newest / gained,
            loss=last,
        )
        cure = translate("raise max_epochs, or lr if the first epochs are slow too")
        yield Finding("under_trained", says, "share of the gain in these steps", newest / gained, threshold, cure)


def warm_up_unfinished(run: RunSignals) -> Iterator[Finding]:
    """The rate was still rising when training ended."""
    rates = run.values("train/lr")
    if not run.finished or len(rates) < MIN_CURVE_POINTS:
        return
    rising = sum(later > earlier for earlier, later in pairwise(rates)) / (len(rates) - 1)
    if rising == 1.0:
        says = translate(
            "the rate was still rising at the last step, to {rate:.3g}: the warm-up is longer than the run",
            rate=rates[-1],
        )
        cure = translate("shorten scheduler.warmup to a twentieth of the run (scheduler.warmup=0.05), or train longer")
        yield Finding("warm_up_unfinished", says, "share of logged steps with a rising rate", rising, 1.0, cure)


def exceeds_noise(difference: float, losses: list[float], *counts: int) -> bool:
    """Whether the medians of so many losses each differ by more than their noise explains."""
    error: float = noise_level(losses) * sum(1 / max(1, count) for count in counts) ** 0.5
    return difference > CLEAR_NOISE_FACTOR * error


def lowest_median(values: list[float]) -> float:
    """The lowest median of a fifth of the values, so that one lucky step is no minimum."""
    width = max(1, len(values) // 5)
    return min(median(values[place : place + width]) for place in range(len(values) - width + 1))


OVERFIT_RATIO = 1.1  # last validation loss over the best
VISIBLE_RISE = 0.02  # rise over the first training loss: of next to nothing, a tenth more is nothing
STILL_FALLING_RATIO = 0.95  # training loss now over that of the best epoch: it still falls
MIN_NOISE_POINTS = 6  # validations before noise and trend can be separated
WIDE_NOISE = 0.02  # noise over the value itself
CHANCE_TOLERANCE = 0.005  # above what a constant answer scores
MIN_R2 = 0.02  # share of the variance


def over_fitted(run: RunSignals) -> Iterator[Finding]:
    """The validation loss has risen since some epoch while the training loss falls."""
    val_points, losses = run.points("val/loss"), run.values("train/loss")
    if len(val_points) < 3 or not losses:
        return
    step, best = min(val_points, key=lambda point: point[1])
    last = val_points[-1][1]
    learned = run.points("train/plain_loss") or run.points("train/loss")
    then = next((value for at, value in learned if at >= step), learned[-1][1])
    falls = late_median([value for _, value in learned]) < STILL_FALLING_RATIO * then
    if (
        best > 0
        and last > OVERFIT_RATIO * best
        and last - best > VISIBLE_RISE * losses[0]
        and falls
        and step < val_points[-2][0]
    ):
        says = translate(
            "over-fitted since epoch {epoch}: val/loss was {best:.3g} there and is {last:.3g} now, while the loss of "
            "the training rows went on falling",
            epoch=run.epoch(step),
            best=best,
            last=last,
        )
        cure = translate(
            "fewer epochs or early stopping, more rows, regularization=strong, adapter=lora, a lower lr; "
            "the best checkpoint is from before where monitor=val/loss"
        )
        yield Finding("over_fitted", says, "last val/loss over the best", last / best, OVERFIT_RATIO, cure)


def noisy_validation(run: RunSignals) -> Iterator[Finding]:
    """Validation scores vary by more than they differ, so which checkpoint is best is chance."""
    values = run.values(run.monitor)
    if len(values) < MIN_NOISE_POINTS:
        return
    jumps, half = noise_level(values), len(values) // 2
    gain = abs(mean(values[half:]) - mean(values[:half]))
    if jumps > gain and jumps > WIDE_NOISE * abs(mean(values)):
        rows = run.data.get("splits", {}).get("validation", {}).get("rows")
        says = translate(
            "{score} jumps by {jumps:.3g} from one validation to the next, and between the first and the second half "
            "of training it moved by {gain:.3g}",
            score=run.monitor,
            jumps=jumps,
            gain=gain,
        )
        if rows:
            says = translate("{text}; it is taken on {rows:,} [row|rows]", text=says, rows=rows)
        cure = translate(
            "more validation rows, monitor=val/loss (steadier than shares), several seeds before any comparison"
        )
        yield Finding("noisy_validation", says, "difference over the noise", gain / jumps, 1.0, cure)


def majority_class(run: RunSignals) -> Iterator[Finding]:
    """Every text gets the same label, or none where it might have several."""
    labels = run.data.get("labels", {})
    counts = labels.get("validation", {})
    recall, right = run.values("val/recall"), run.values("val/accuracy")
    cure = translate(
        "raise or lower lr tenfold, data.class_weights=balanced, more epochs; check that data.text is the right "
        "column and that data.label can be predicted from it"
    )
    if run.config_value("data.multilabel"):
        if len(recall) >= 2 and max(recall[-2:]) == 0:
            says = translate("no label is right for any text: macro recall is 0")
            tried = translate("{cure}; or a lower data.threshold", cure=cure)
            yield Finding("majority_class", says, "macro recall", 0.0, 0.0, tried)
        return
    if len(counts) < 2 or len(recall) < 2 or len(right) < 2:
        return
    bound = 1 / len(counts) + CHANCE_TOLERANCE
    shares = {name: count / sum(counts.values()) for name, count in counts.items()}
    label = min(shares, key=lambda name: abs(shares[name] - right[-1]))
    if max(recall[-2:]) <= bound and abs(shares[label] - right[-1]) < CHANCE_TOLERANCE:
        says = translate(
            "stuck at one class: accuracy {accuracy:.1%} is the share of {label!r}, recall {recall:.3g} of chance",
            accuracy=right[-1],
            label=label,
            recall=recall[-1],
        )
        yield Finding("majority_class", says, "macro recall", recall[-1], bound, cure)


def mean_only(run: RunSignals) -> Iterator[Finding]:
    """The predicted numbers explain nothing: their mean would do as well."""
    values = run.values("val/r2")
    if len(values) >= 2 and max(values[-2:]) < MIN_R2:
        says = translate(
            "val/r2 is {value:.3g}: predicting the mean of the training rows for everything does as well",
            value=values[-1],
        )
        cure = translate(
            "raise lr (or lower it, if the loss rises), more epochs; check that data.text says anything of data.target"
        )
        yield Finding("mean_only", says, "val/r2", values[-1], MIN_R2, cure)


IMBALANCE_RATIO = 10.0  # rows of the commonest label for each of the rarest
EVEN_RECALL_RATIO = 0.95  # macro recall over accuracy, from which rare labels fare like common ones
LEAKED_SHARE = 0.05  # share of validation or test rows
CUT_SHARE = 0.1  # share of training rows
UNKNOWN_SHARE = 0.05  # share of the training text
PADDED_SHARE = 0.4  # share of positions
MIN_MEMORY_POINTS = 8  # of memory, over which growth is assessed
MEMORY_GROWTH_RATIO = 1.3  # memory now over memory once everything was loaded
MEMORY_GROWTH_MB = 256.0  # growth that is worth a word


def imbalanced_classes(run: RunSignals) -> Iterator[Finding]:
    """Some labels are far rarer than others, the loss does nothing about it, and they are found less often."""
    counts = run.data.get("labels", {}).get("train", {})
    if (
        len(counts) < 2
        or run.config_value("data.multilabel")
        or run.config_value("data.class_weights") not in (None, "none")
    ):
        return
    recall, right = run.values("val/recall"), run.values("val/accuracy")
    validated = run.data.get("labels", {}).get("validation", {})  # recall is a mean over labels that occur there
    if counts.keys() <= validated.keys() and recall and right and recall[-1] > EVEN_RECALL_RATIO * right[-1]:
        return  # labels are found equally often, the rare ones too
    common, rare = (pick(counts, key=lambda name: counts[name]) for pick in (max, min))
    ratio = counts[common] / max(1, counts[rare])
    if ratio >= IMBALANCE_RATIO:
        says = translate(
            "{most:,} training [row|rows] of {common!r} and {least:,} of {rare!r}: {ratio:.3g} to 1",
            most=counts[common],
            common=common,
            least=counts[rare],
            rare=rare,
            ratio=ratio,
        )
        cure = translate(
            "data.class_weights=balanced, monitor=val/f1 rather than accuracy, more rows of the rare labels"
        )
        yield Finding("imbalanced_classes", says, "commonest over rarest label", ratio, IMBALANCE_RATIO, cure)


def leaked_rows(run: RunSignals) -> Iterator[Finding]:
    """Rows of the validation or test split that also stand in the training split."""
    for leak in run.data.get("leaks", {}).get("exact", ()):
        earlier, later = leak["splits"]
        share = leak["rows"] / max(1, leak["of"])
        if earlier == "train" and share > LEAKED_SHARE:
            says = translate(
                "train has {rows:,} of {total:,} {split} [row|rows] too, so {split} scores are too optimistic",
                rows=leak["rows"],
                total=leak["of"],
                split=later,
            )
            cure = translate(
                "take these rows out of train, or let the {split} split be made from the training file", split=later
            )
            yield Finding("leaked_rows", says, f"share of {later} rows", share, LEAKED_SHARE, cure)


def cut_rows(run: RunSignals) -> Iterator[Finding]:
    """Training rows that are shortened or dropped, where they are many."""
    counts = run.data.get("splits", {}).get("train", {})
    lost = counts.get("truncated", 0) + counts.get("dropped", 0)
    if counts.get("rows") and (share := lost / (counts["rows"] + counts.get("dropped", 0))) > CUT_SHARE:
        says = translate(
            "training rows: {cut:,} cut, {dropped:,} dropped",
            cut=counts.get("truncated", 0),
            dropped=counts.get("dropped", 0),
        )
        cure = translate("raise data.max_tokens or model.context, or split long records; tunelab preview shows which")
        yield Finding("cut_rows", says, "share of training rows", share, CUT_SHARE, cure)


def unknown_text(run: RunSignals) -> Iterator[Finding]:
    """Much of the training text is unknown to the tokenizer, so that different texts look the same."""
    share = run.data.get("unknown_tokens", {}).get("train", 0.0)
    if share >= UNKNOWN_SHARE:
        says = translate(
            "the tokenizer does not know {share:.0%} of the training text: to the model it is all the same", share=share
        )
        cure = translate("take a model for that language or script, a multilingual one, or one whose tokens are bytes")
        yield Finding("unknown_text", says, "share of the training text", share, UNKNOWN_SHARE, cure)


def excess_padding(run: RunSignals) -> Iterator[Finding]:
    """A large share of the computation is spent on padding."""
    shares = run.values("train/padding_fraction")
    if shares and (share := median(shares)) > PADDED_SHARE:
        says = translate("{share:.0%} of all positions are padding", share=share)
        cure = translate(
            "lower micro_tokens, so that rows of similar length share a pass, or a model that supports packing"
        )
        yield Finding("padding", says, "median of train/padding_fraction", share, PADDED_SHARE, cure)


def memory_leak(run: RunSignals) -> Iterator[Finding]:
    """The memory of the process grows and grows."""
    held = run.values("train/memory_mb")
    if len(held) < MIN_MEMORY_POINTS:
        return
    quarter = len(held) // 4
    parts = [median(held[place * quarter : (place + 1) * quarter]) for place in range(4)]
    grows = parts[0] < parts[1] < parts[2] < parts[3]
    if grows and parts[3] > MEMORY_GROWTH_RATIO * parts[1] and parts[3] - parts[1] > MEMORY_GROWTH_MB:
        says = translate(
            "the process grew from {before:,.0f} to {after:,.0f} MB, and in every quarter of the run",
            before=parts[1],
            after=parts[3],
        )
        cure = translate("look for a callback of your own that keeps tensors; lower data.in_memory and data.workers")
        yield Finding(
            "memory_leak",
            says,
            "memory in the last quarter over the second",
            parts[3] / parts[1],
            MEMORY_GROWTH_RATIO,
            cure,
        )


DOCTOR_CHECKS: dict[str, Callable[[RunSignals], Iterator[Finding]]] = {
    "non_finite": non_finite_steps,
    "exploding_gradients": exploding_gradients,
    "vanishing_gradients": vanishing_gradients,
    "rate_too_high": learning_rate_too_high,
    "rate_too_low": learning_rate_too_low,
    "warm_up_unfinished": warm_up_unfinished,
    "loss_spikes": loss_spikes,
    "dead_units": dead_units,
    "majority_class": majority_class,
    "mean_only": mean_only,
    "imbalanced_classes": imbalanced_classes,
    "leaked_rows": leaked_rows,
    "over_fitted": over_fitted,
    "under_trained": under_trained,
    "noisy_validation": noisy_validation,
    "cut_rows": cut_rows,
    "unknown_text": unknown_text,
    "padding": excess_padding,
    "memory_leak": memory_leak,
}


FATAL_CHECKS = ("non_finite",)  # problems that end a run or take steps from it; the others are warnings


def run_doctor(run: RunSignals) -> list[Finding]:
    """Every finding on a run, in the order of `DOCTOR_CHECKS`."""
    return [finding for check in DOCTOR_CHECKS.values() for finding in check(run)]
