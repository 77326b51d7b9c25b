"""Whether the learning rate suits: what the loss does, and how far each step moves the weights.  Pure."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from tunelab.doctor.evidence import Evidence, Finding, end, noise, start

LEAST_POINTS = 5  # of a curve before anything is said
TREND_POINTS = 10  # of the loss before its course is judged: the middle of a tenth needs one
RISEN = 1.02  # end over start from which the loss has risen
LEFT_BEHIND = 0.25  # of all that was gained, lost again
CLEAR = 2.5  # times its own error by noise, that a difference between two middles must be
FAR = 0.1  # of the size of all weights in a single step: ten of these make another network; 0.001 is the usual advice
ADAPTER_FAR = 0.5  # the same of an adapter, half of which begins at zero
WHOLE = ("full", "top_layers")  # kinds of training that go on from weights of some size
STILL = 1e-5  # of a weight's size in one step: a thousand steps move it by a hundredth
FALLEN = 0.02  # share of the first loss
STEEP = 0.15  # share of all that was gained, in the last fifth of the validations
WORTH = 0.03  # of the validation loss itself


def too_high(run: Evidence) -> Iterator[Finding]:
    """The loss rises, or comes back up from where it was; or weights are replaced rather than tuned."""
    losses, moves = run.values("train/loss"), run.values("train/update_ratio")
    if len(losses) < LEAST_POINTS:
        return
    cure = "lower lr to a third or a tenth; then a longer scheduler.warmup and a lower trainer.gradient_clip_val"
    if moves and median(moves) < STILL:
        return  # weights that stand still are not moved too far
    first, last = start(losses), end(losses)
    tenth, fifth, long = len(losses) // 10, len(losses) // 5, len(losses) >= TREND_POINTS
    if long and last > RISEN * first and clear(last - first, losses, tenth, fifth):
        says = f"the training loss rose from {first:.3g} to {last:.3g}"
        yield Finding("rate_too_high", says, "loss at the end over loss at the start", last / first, RISEN, cure)
    elif (
        long
        and clear(first - (best := lowest(losses)), losses, tenth, fifth)
        and clear(last - best, losses, fifth, fifth)
        and (back := (last - best) / (first - best)) > LEFT_BEHIND
    ):
        says = f"the training loss fell from {first:.3g} to {best:.3g} and came back to {last:.3g}"
        yield Finding("rate_too_high", says, "share of the gain that was lost again", back, LEFT_BEHIND, cure)
    elif moves and (move := max(moves)) > (far := FAR if run.setting("adapter.kind") in WHOLE else ADAPTER_FAR):
        says = f"a single step changed the weights by {move:.0%} of their size, where 0.1 % is usual"
        yield Finding("rate_too_high", says, "largest train/update_ratio", move, far, cure)


def too_low(run: Evidence) -> Iterator[Finding]:
    """The weights hardly move, and the loss hardly falls."""
    losses, moves = run.values("train/loss"), run.values("train/update_ratio")
    if len(losses) < LEAST_POINTS or not moves:
        return
    half = len(losses) // 2
    first, last = median(losses[:half]), median(losses[half:])
    move, fallen = median(moves), 1 - last / first if first else 1.0
    if move < STILL and (abs(fallen) < FALLEN or not clear(abs(first - last), losses, half, half)):
        says = f"a step changes the weights by {move:.1e} of their size, and the loss fell by {fallen:.1%}"
        cure = "raise lr tenfold, until the loss falls within the first epoch"
        yield Finding("rate_too_low", says, "median of train/update_ratio", move, STILL, cure)


def under_trained(run: Evidence) -> Iterator[Finding]:
    """The validation loss was still falling fast when training ended."""
    found, losses = run.values("val/loss"), run.values("train/loss")
    if not run.over or len(found) < 2 or not losses:
        return
    newest = found[-1 - max(1, len(found) // 5)] - found[-1]
    gained = max(losses[0], found[0]) - found[-1]
    if gained > 0 and newest / gained > STEEP and newest > WORTH * found[-1]:
        says = f"the last fifth of validations brought {newest / gained:.0%} of all gained (val/loss {found[-1]:.3g})"
        cure = "raise max_epochs, or lr if the first epochs are slow too"
        yield Finding("under_trained", says, "share of the gain in the last fifth", newest / gained, STEEP, cure)


def warm_up_unfinished(run: Evidence) -> Iterator[Finding]:
    """The rate was still rising when training ended."""
    rates = run.values("train/lr")
    if not run.over or len(rates) < LEAST_POINTS:
        return
    rising = sum(later > earlier for earlier, later in pairwise(rates)) / (len(rates) - 1)
    if rising == 1.0:
        says = f"the rate was still rising at the last step, to {rates[-1]:.3g}: the warm-up is longer than the run"
        cure = "shorten scheduler.warmup to a twentieth of the run (scheduler.warmup=0.05), or train longer"
        yield Finding("warm_up_unfinished", says, "share of logged steps with a rising rate", rising, 1.0, cure)


def clear(difference: float, losses: list[float], *counts: int) -> bool:
    """Whether the middles of so many losses each differ by more than the noise of the losses explains."""
    error: float = noise(losses) * sum(1 / max(1, count) for count in counts) ** 0.5
    return difference > CLEAR * error


def lowest(values: list[float]) -> float:
    """The lowest middle of a fifth of the values, so that one lucky step is no valley."""
    width = max(1, len(values) // 5)
    return min(median(values[place : place + width]) for place in range(len(values) - width + 1))
