"""Results on a W&B run as its users look for them: charts, tables and artifacts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tunelab.tracking.redact import redact
from tunelab.tracking.showing import Shown, table_of

BINS = 64  # of a histogram; W&B takes at most 512


def show_on(run: Any, shown: Shown, *, name: str) -> None:
    """Put the results of a run on its page.

    Args:
        run: The `wandb.Run`.
        shown: What there is.
        name: What artifacts are called after, with their kind before it.
    """
    import wandb  # half a second that runs without wandb need not pay

    for split, counts in shown.confusion.items():
        cells = [
            [real, given, counts[i][j]] for i, real in enumerate(shown.labels) for j, given in enumerate(shown.labels)
        ]
        chart = wandb.plot_table(
            vega_spec_name="wandb/confusion_matrix/v1",
            data_table=wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=cells),
            fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            string_fields={"title": f"{split}: real and predicted classes"},
        )
        run.log({f"{split}/confusion": chart})
    if shown.predictions:
        columns, lines = table_of(redact(list(shown.predictions)))
        run.log({"test/predictions": wandb.Table(columns=list(columns), data=lines, allow_mixed_types=True)})
    for kind, place in shown.files.items():
        if kind == "report" and place.suffix == ".html":
            run.log({"report": wandb.Html(place.read_text(encoding="utf-8"), inject=False)})
        run.log_artifact(artifact(kind, place, f"{kind}-{name}", shown.scores))


def artifact(kind: str, place: Path, name: str, scores: Mapping[str, float]) -> Any:
    """A file or folder of the run as an artifact, with the scores as its metadata."""
    import wandb  # as above

    found = wandb.Artifact(name, type="model" if kind == "export" else kind, metadata=dict(scores))
    found.add_dir(str(place)) if place.is_dir() else found.add_file(str(place))
    return found


def histogram(values: Tensor) -> Any:
    """How the finite values of a tensor spread."""
    import wandb  # as above

    flat = values.detach().float().flatten()
    counts, edges = np.histogram(flat[flat.isfinite()].cpu().numpy(), bins=BINS)
    return wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
