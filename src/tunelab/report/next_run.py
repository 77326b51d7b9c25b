"""What to run next after a single run, as commands to paste.  Pure."""

import shlex
from collections.abc import Mapping

from tunelab.config.overrides import override_key
from tunelab.config.quoting import path_word
from tunelab.language.translation import translate
from tunelab.report.document import Block, Command, Section
from tunelab.report.run_reader import RunResults
from tunelab.report.training_sections import diagnose_run_curve
from tunelab.runs import console
from tunelab.runs.run_dir import RunDirectory

OTHER_SEEDS = 3  # of a suggestion
OF_ONE_RUN = ("seed=", "resume=", "hydra.run.", "hydra.sweep.", "search", "trial.")  # of no use to another run
OVERFITTING = ("over-fitted", "worsened", "early", "never better")


def next_run_section(run: RunResults) -> list[Section]:
    """The section on what to run next; none for a trial, whose study says it, or without final scores."""
    trial = run.config.get("trial")
    if not run.scores or run.status == "running" or (isinstance(trial, Mapping) and trial.get("study")):
        return []
    kind, blocks = diagnose_run_curve(run).shape, list[Block]()
    if kind == "improving" and RunDirectory(run.root).last.is_file() and (longer := twice_as_long(run)):
        words = shlex.join([path_word("resume", run.root), longer])
        text = translate("The score was still getting better: go on until it is twice as long:")
        blocks.append(Command(f"{console.train_command(run.manifest.get('script'))} {words}", text))
    text = (
        translate("It was better before its end: search for another rate and more regularization:")
        if kind in OVERFITTING
        else translate("Find out which settings matter, and better values for them:")
    )
    blocks.append(Command(many_runs(run, "search=bayes", f"search/space={usual_space(run)}"), text))
    text = translate("How far the score depends on luck: the same settings with other seeds:")
    blocks.append(Command(many_runs(run, f"seed={','.join(map(str, other_seeds(run)))}"), text))
    return [Section("What to run next", blocks)]


def other_seeds(*runs: RunResults) -> list[int]:
    """The first seeds that none of the runs had: the same seed would only repeat one."""
    taken = {run.config.get("seed") for run in runs}
    return [seed for seed in range(OTHER_SEEDS + len(runs)) if seed not in taken][:OTHER_SEEDS]


def many_runs(run: RunResults, *words: str) -> str:
    """A command that trains with the settings of the run, and with those of the words."""
    sessions = [*(run.manifest.get("sessions") or []), run.manifest]  # a resumed one is given only what it changes
    typed = {override_key(line): line for session in sessions for line in session.get("overrides") or []}
    kept = [line for line in typed.values() if not line.lstrip("+~").startswith(OF_ONE_RUN)]
    train = console.train_command(run.manifest.get("script"))
    return f"{train} {shlex.join([*config_folder(run), '-m', *words, *kept])}"


def config_folder(run: RunResults) -> list[str]:
    """The option of the command of the run that names a folder of configs of one's own."""
    words = shlex.split(str((run.manifest.get("sessions") or [run.manifest])[0].get("command") or ""))
    for at, word in enumerate(words):
        if word in ("--config-dir", "-cd"):
            return words[at : at + 2]
        if word.startswith("--config-dir="):
            return [word]
    return []


def twice_as_long(run: RunResults) -> str:
    """The override that doubles the length of the run, by what ended it; empty where neither did."""
    steps, epochs = run.config.get("max_steps"), run.config.get("max_epochs")
    done = int(run.curves[-1].get("step", 0)) + 1 if run.curves else 0
    if isinstance(steps, int) and 0 < steps <= done:
        return f"max_steps={2 * steps}"
    if isinstance(epochs, int) and epochs > 0 and run.status == "finished":
        return f"max_epochs={2 * epochs}"
    return ""


def usual_space(run: RunResults) -> str:
    """The shipped search space for a run of this kind."""
    adapter = run.config.get("adapter")
    if isinstance(adapter, Mapping) and adapter.get("kind") == "lora":
        return "lora"
    return "classification" if run.task == "classification" else "sft"
