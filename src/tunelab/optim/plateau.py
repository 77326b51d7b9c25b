"""A rate that falls when validation stands still."""

from math import isfinite

from tunelab.optim.schedule import warmup_steps


class Plateau:
    """Factor on the peak rate: a linear rise, then as much as the validations have left of it.

    It follows `torch.optim.lr_scheduler.ReduceLROnPlateau` with absolute thresholds.  All it knows are numbers in
    its attributes, so that PyTorch's `LambdaLR` saves and restores it with a run.

    Args:
        total: Steps of the run; used for shares only.
        warmup: Steps of rise, a share of the run below 1.
        factor: What the rate is multiplied by when the score stands still.
        patience: Validations without improvement that are borne.
        min_delta: An improvement smaller than this does not count.
        cooldown: Validations after a fall that do not count as without improvement.
        floor: Share of the peak that is always left.

    Attributes:
        share: What the validations have left of the peak.
        best: Best score so far; None before the first.
        bad: Validations since then.
        cooling: Validations that are still forgiven.
    """

    def __init__(
        self,
        *,
        total: int,
        warmup: float = 0,
        factor: float = 0.5,
        patience: int = 1,
        min_delta: float = 0.0,
        cooldown: int = 0,
        floor: float = 0.0,
    ) -> None:
        self.rise = warmup_steps(warmup, total)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.cooldown, self.floor = cooldown, floor
        self.share, self.bad, self.cooling = 1.0, 0, 0
        self.best: float | None = None

    def __call__(self, step: int) -> float:
        """The factor at an optimizer step."""
        return self.share * min(1.0, (step + 1) / max(1, self.rise))

    def judge(self, score: float, mode: str) -> bool:
        """Take note of a validation.

        Args:
            score: The monitored score; one that is not finite is no improvement.
            mode: "min" or "max": which way it is better.

        Returns:
            Whether the rate falls.
        """
        gain = float("inf") if self.best is None else (self.best - score if mode == "min" else score - self.best)
        if isfinite(score) and gain > self.min_delta:
            self.best, self.bad = score, 0
        else:
            self.bad += 1
        if self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad <= self.patience:
            return False
        self.bad, self.cooling = 0, self.cooldown
        before, self.share = self.share, max(self.floor, self.share * self.factor)
        return self.share < before
