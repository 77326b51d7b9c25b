"""The loss on each source of a mix, beside the scores of the whole split."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tunelab.data.examples import Micro
from tunelab.tasks.base import Scores


class SourceScores(nn.Module):
    """One set of running scores for each source.

    Args:
        make: Gives fresh scores.
        sources: The source of each record of the split; empty without a mix, and then nothing is counted.
        scored: Names of the sources that have an example in the split.
    """

    def __init__(self, make: Callable[[], Scores], sources: Sequence[str] = (), scored: Sequence[str] = ()) -> None:
        super().__init__()
        self.sources, self.names = sources, list(scored)
        self.each = nn.ModuleList(make() for _ in self.names)

    def update(self, logits: Tensor, micro: Micro) -> None:
        """Take in a micro-batch, all of whose records come from one source.

        Raises:
            ValueError: If they come from several: their losses could not be told apart.
        """
        if not self.names:
            return
        held = {self.sources[row] for row in micro.rows.tolist() if row >= 0}
        if len(held) > 1:
            raise ValueError(f"a micro-batch mixes the sources {', '.join(sorted(held))}")
        for name in held:
            self._of(name).update(logits, micro)

    def compute(self) -> dict[str, float]:
        """`NAME/loss` of each source, over all ranks."""
        return {f"{name}/loss": self._of(name).compute()["loss"] for name in self.names}

    def reset(self) -> None:
        """Forget everything."""
        for name in self.names:
            self._of(name).reset()

    def _of(self, name: str) -> Scores:
        found = self.each[self.names.index(name)]
        assert isinstance(found, Scores)
        return found
