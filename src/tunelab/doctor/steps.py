"""Steps that go wrong: spikes, what is not finite, gradients that vanish or explode, dead units.  Pure."""

from collections.abc import Iterator
from statistics import median

from tunelab.doctor.evidence import Evidence, Finding, called

SPIKES = 2  # one may be one bad row
LEAST_POINTS = 3  # logged steps before a layer is judged
FAINT = 1e-4  # of the gradient of the layer that has most
HUGE = 100.0  # gradient norm, where 0.1 to 10 is usual for a mean loss
DEAD = 0.5  # share of a layer's units


def spikes(run: Evidence) -> Iterator[Finding]:
    """Single steps whose loss stands far above its surroundings."""
    counts, heights = run.values("train/spikes"), run.values("train/spike_height")
    if counts and counts[-1] >= SPIKES:
        says = f"{counts[-1]:.0f} loss spikes, the highest {max(heights, default=0):.3g} times the losses before it"
        cure = (
            "look at the rows of those steps, lower trainer.gradient_clip_val or lr, raise batch_size; "
            "optimizer.betas=[0.9,0.95] forgets a spike sooner"
        )
        yield Finding("loss_spikes", says, "train/spikes", counts[-1], SPIKES, cure)


def non_finite(run: Evidence) -> Iterator[Finding]:
    """Steps that were left out, or one that ended the run."""
    skipped = run.values("train/skipped_steps")
    cure = "lower lr, lengthen scheduler.warmup, look for broken rows, and train in 32 bit (trainer.precision=32-true)"
    if run.status == "diverged":
        yield Finding("non_finite", run.reason.split(". ")[0], "steps that were not finite", 1.0, 1.0, cure)
    elif skipped and skipped[-1] > 0:
        says = f"{skipped[-1]:.0f} steps were left out because loss or gradient was not finite"
        yield Finding("non_finite", says, "train/skipped_steps", skipped[-1], 1.0, cure)


def vanishing(run: Evidence) -> Iterator[Finding]:
    """Layers that next to no gradient reaches."""
    norms = {part: median(found) for part, found in run.layers("grad_norm").items() if len(found) >= LEAST_POINTS}
    most = max(norms.values(), default=0.0)
    if not most or run.setting("adapter.unfreeze_every") or run.setting("adapter.unfreeze_at"):
        return  # those held back have no gradient on purpose
    faint = {part: norm / most for part, norm in norms.items() if part.isdigit() and norm < FAINT * most}
    if faint:
        lowest = min(faint, key=lambda part: faint[part])
        named = ", ".join(faint)
        says = (
            f"the gradient of layer {named} is next to nothing: in layer {lowest} it is {faint[lowest]:.1e} of that "
            "of the part with most"
        )
        cure = (
            "normalise and keep residual paths (model.normalisation), take another model.activation than sigmoid or "
            "tanh, a larger model.initial_std, or fewer layers; optimizer=adamw makes up for some of it"
        )
        yield Finding("vanishing_gradients", says, "gradient norm over the largest", faint[lowest], FAINT, cure)


def exploding(run: Evidence) -> Iterator[Finding]:
    """Gradients far beyond what clipping is for."""
    whole = run.values("train/grad_norm")
    if len(whole) < LEAST_POINTS or median(whole) <= HUGE:
        return
    norms = {part: median(found) for part, found in run.layers("grad_norm").items() if found}
    where = f", most of it in {called(max(norms, key=lambda part: norms[part]))}" if norms else ""
    says = f"the gradient norm is {median(whole):.3g}{where}; clipping leaves its direction only"
    cure = "a smaller model.initial_std, normalisation, a lower lr with a longer scheduler.warmup"
    yield Finding("exploding_gradients", says, "median of train/grad_norm", median(whole), HUGE, cure)


def dead_units(run: Evidence) -> Iterator[Finding]:
    """Layers most of whose units no token switches on any more."""
    shares = {part: min(found[-3:]) for part, found in run.layers("dead_units").items() if len(found) >= LEAST_POINTS}
    worst = max(shares, key=lambda part: shares[part], default=None)
    if worst is not None and shares[worst] > DEAD:
        says = f"{shares[worst]:.0%} of the units of {called(worst)} are never on"
        cure = "lower lr or lengthen scheduler.warmup, model.activation=silu instead of relu, a smaller weight_decay"
        yield Finding("dead_units", says, f"layers/{worst}/dead_units", shares[worst], DEAD, cure)
