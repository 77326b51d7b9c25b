"""A survey in words: the same lines for the terminal and the page.  Pure."""

from collections.abc import Sequence

from tunelab.analysis.number_format import format_number
from tunelab.inspection.survey import Survey

MIB = 2**20


def architecture(found: Survey) -> dict[str, str]:
    """The model in numbers."""
    shown = {
        name: f"{size:,}" if isinstance(size, int) else str(size)
        for name, size in found.sizes.items()
        if size is not None
    }
    total, learns = int(found.sizes["parameters"] or 0), int(found.sizes["trainable"] or 0)
    shown["trainable"] += f" ({learns / max(1, total):.3%})" if learns < total else " (all)"
    return shown


def work(found: Survey) -> dict[str, str]:
    """Steps, tokens, arithmetic, time."""
    load = found.work
    per_token = found.operations_per_token
    lines = {
        "steps": f"{found.steps:,}, of which {found.curve.warmup:,} are warm-up; {load.steps:,} per epoch",
        "rows per epoch": f"{load.rows:,}",
        "tokens per epoch": f"{load.tokens:,}, {load.tokens / max(1, load.steps):,.0f} per step",
        "passes per step": f"{load.passes / max(1, load.steps):.3g}; {load.padding:.1%} of their positions are padding",
        "FLOPs per token": f"{format_number(per_token)} forward and backward; {format_number(per_token * found.tokens)} in all",
    }
    if (per_second := found.speed.tokens_per_second) is not None:
        lines["speed"] = (
            f"{format_number(per_second)} tokens per second on {found.speed.device}, "
            f"{format_number(per_second * per_token)} FLOPs per second"
        )
    lines["expected time"] = expected_time(found)
    return lines


def expected_time(found: Survey) -> str:
    """How long training alone will take."""
    if found.seconds is None:
        return f"unknown: {found.speed.fault or 'too few steps to tell'}"
    mean, fast, slow = found.seconds
    tried = f"{len(found.speed.seconds)} steps"
    return f"{span(mean)} of training ({span(fast)} to {span(slow)} by {tried} that were tried), without validations"


def span(seconds: float) -> str:
    """A time in the unit that fits it."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def memory(found: Survey) -> list[tuple[str, int, str]]:
    """What takes how many bytes, and why."""
    needs = found.memory
    lines = [
        ("weights", needs.weights, "parameters and buffers"),
        ("gradients", needs.gradients, "of all that learns"),
        ("optimizer", needs.optimizer, "its state, from the first step on"),
        ("averages", needs.averages, "copies of the weights that regularization keeps"),
        ("activations", needs.activations, "of the heaviest forward and backward pass under micro_tokens"),
        ("workspace", needs.workspace, "of matrix products, from the first one on"),
        ("optimizer's step", needs.step, "in passing, while no activations stand"),
    ]
    return [line for line in lines if line[1] or line[0] in ("optimizer", "gradients")]


def memory_verdict(found: Survey) -> list[str]:
    """The peak, and whether it fits."""
    needs, said = found.memory, []
    said.append(f"peak {mebibytes(needs.peak)}: not all of it stands at the same time")
    if needs.passes.share < 1:
        said.append(
            f"activations are scaled up from {needs.passes.share:.0%} of the heaviest micro-batch, which does not fit"
        )
    if found.room is not None and needs.peak > found.room:
        said.append(
            f"{mebibytes(found.room)} are there, so this will not fit: lower micro_tokens (python train.py "
            "find=micro_tokens finds the largest that fits), or take adapter=lora"
        )
    elif found.room is not None:
        said.append(f"{mebibytes(found.room)} are there, so it fits")
    if found.speed.memory is not None:
        said.append(f"the steps that were tried took {mebibytes(found.speed.memory)} at most")
    return said


def mebibytes(size: int) -> str:
    """Bytes as people compare them."""
    return f"{size / MIB:,.1f} MiB" if size < 2**33 else f"{size / 2**30:,.1f} GiB"


def rates(found: Survey) -> str:
    """The learning rate in words."""
    curve = found.curve
    if not curve.rates:
        return "no step is planned"
    peak = max(curve.rates)
    rise = f"{curve.warmup:,} steps of warm-up, " if curve.warmup else ""
    end = "then validations decide" if curve.follows else f"{format_number(curve.rates[-1])} at the last step"
    return f"{rise}peak {format_number(peak)}, {end}"


def health(found: Survey) -> list[str]:
    """The verdict on the first signals, and what to do about it."""
    verdict = found.verdict
    advice = {
        "vanishing": "nothing reaches the other end of the network: raise model.initial_std (null suits most), take "
        "model.init=xavier, a normalisation, fewer layers, or another activation",
        "exploding": "the first steps will diverge or crawl: lower model.initial_std (null suits most), take "
        "model.init=depth_scaled, a normalisation, or fewer layers",
    }
    return [*verdict.reasons, *([advice[verdict.word]] if verdict.word in advice else [])]


def layers(found: Survey) -> list[Sequence[str]]:
    """A row per part: name, parameters, trainable, signal, change, gradient."""
    signals = {name: place for place, name in enumerate(found.signals.names)}
    rows: list[Sequence[str]] = []
    for part in found.parts:
        place = signals.get(part.name)
        seen = (
            ("", "", "")
            if place is None
            else tuple(
                format_number(values[place]) if values[place] == values[place] else "-"
                for values in (found.signals.forward, found.signals.added, found.signals.backward)
            )
        )
        rows.append((part.name, f"{part.parameters:,}", f"{part.trainable:,}", *seen))
    return rows
