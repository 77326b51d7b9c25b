"""The winner, and only the winner, meets the test split."""

import subprocess
from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from tunelab.errors import TuneLabError
from tunelab.search.folder import StudyFolder
from tunelab.search.outcome import LOG, read


def judge_winner(
    folder: StudyFolder, study: optuna.Study, winner: FrozenTrial, command: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Score the best trial on the test split and export it; each look at the split is counted in the study.

    Raises:
        TuneLabError: If the scoring fails.
    """
    before = study.user_attrs.get("test", {})
    if before.get("trial") == winner.number:
        return
    looks = int(study.user_attrs.get("looks", 0)) + 1
    study.set_user_attr("looks", looks)  # before the look: one that fails half-way has looked too
    run = folder.trial(winner.number)
    tell(f"scoring trial {winner.number}, and only it, on the test split")
    own = [f"resume={run}", f"hydra.run.dir={run}", "test=true", "save=true"]
    with (run / LOG).open("ab") as log:
        done = subprocess.run([*command, *own], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise TuneLabError(
            f"the best trial {winner.number} could not be scored on the test split (exit status {done.returncode}); "
            f"{run / LOG} tells why, and the same command tries it again"
        )
    scores = {name: value for name, value in read(run / "metrics.json").items() if name.startswith(("test/", "base/"))}
    study.set_user_attr("test", {"trial": winner.number, "scores": scores})
    if not scores:
        tell("there is no test split, so the best score is one that the search itself has chosen: too good to be true")
        return
    tell(", ".join(f"{name} {value:.5g}" for name, value in scores.items()))
    if looks > 1:
        tell(f"the test split was looked at {looks} times by now; each further look makes the score less honest")
