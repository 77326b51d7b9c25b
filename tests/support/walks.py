"""The four walks of docs/design.md, traced through real runs: the files a reader opens to follow one thing to its end.

Each walk has milestones in order, such as "the first value that carries the marked record".  When the run reaches one,
the call stack of that moment is taken.  The walk is the union of the files of `src/tunelab` on these stacks, outermost
first, in the order in which they first appear.  So a walk holds the files that lead to each milestone.  It leaves out
what was called on the way and had returned by then, modules that only hold a type, and other packages.  Milestones are
described by values and by functions of other packages, not by names of our functions: none was picked to keep a walk
short.

`make walks` runs all four (a few tiny trainings on the CPU) and writes them and the tree into docs/design.md;
`python -m support.walks tree`, in the folder tests/, writes the tree alone, in no time.
"""

import ast
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from types import CodeType, FrameType
from typing import Any

from support.paths import ROOT

SRC = f"{ROOT / 'src' / 'tunelab'}/"
PAGE = ROOT / "docs" / "design.md"
MARK = "quetzalcoatl"  # a word that only the marked record has
AIMS = {"record to loss": 16, "key to optimizer": 7, "sweep to result": 16, "study to page": 12}
TINY = [
    *("model=scratch", "model.depth=1", "model.width=32", "model.heads=2", "model.context=128", "max_steps=1"),
    *("logger=none", "eval.base=false", "eval.generate=false", "save=false", "trainer.accelerator=cpu"),
    "trainer.enable_progress_bar=false",
]


@dataclass(frozen=True)
class Moment:
    """A call or a return that the tracer sees.

    Attributes:
        frame: The function that is entered or left.
        value: What it returns; None at a call.
    """

    frame: FrameType
    value: Any

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Local variables of the function: its arguments, at a call."""
        return self.frame.f_locals

    def below(self, function: str) -> bool:
        """Whether a function of this name is on the stack."""
        frame: FrameType | None = self.frame
        while frame is not None and frame.f_code.co_name != function:
            frame = frame.f_back
        return frame is not None


@dataclass(frozen=True)
class Milestone:
    """A place on a walk.

    Attributes:
        name: What has happened there.
        reached: Whether it happens at a moment.
        outside: Function of another package that is entered there, as end of a path and name; None for one of ours.
        at_return: Whether a return is looked at, not a call.
    """

    name: str
    reached: Callable[[Moment], bool] = lambda moment: True
    outside: tuple[str, str] | None = None
    at_return: bool = False

    def concerns(self, code: CodeType) -> bool:
        """Whether a function can be the one."""
        if self.outside is None:
            return code.co_filename.startswith(SRC)
        return code.co_name == self.outside[1] and code.co_filename.endswith(self.outside[0])


@dataclass
class Tracer:
    """Takes the stack at each milestone; to be given to `sys.setprofile`.

    Attributes:
        milestones: Those still ahead.
        stacks: Files of `src/tunelab` on the stack at each milestone that was reached, outermost first.
    """

    milestones: list[Milestone]
    stacks: dict[str, list[str]] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        """Look at one call or return."""
        if not self.milestones or event not in ("call", "return"):
            return
        ahead = self.milestones[0]
        if (event == "return") is not ahead.at_return or not ahead.concerns(frame.f_code):
            return
        if ahead.reached(Moment(frame, value)):
            self.stacks[self.milestones.pop(0).name] = files_on_stack(frame)


def files_on_stack(frame: FrameType | None) -> list[str]:
    """Files of `src/tunelab` on a stack, outermost first, each once."""
    files: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(SRC):
            files.append(frame.f_code.co_filename.removeprefix(SRC))
        frame = frame.f_back
    return list(dict.fromkeys(reversed(files)))


def record_milestones() -> list[Milestone]:
    """From a row of a file to its part of the loss."""
    from tunelab.data.conversation import Conversation
    from tunelab.data.examples import Example, MicroBatch

    ids: list[int] = []  # of the marked record, once they are known

    def is_row(moment: Moment) -> bool:
        return isinstance(moment.value, dict) and MARK in str(moment.value.get("output"))

    def is_encoded(moment: Moment) -> bool:
        examples = moment.value if isinstance(moment.value, list) else [moment.value]
        if not any(isinstance(example, Example) for example in examples) or MARK not in repr(moment.arguments):
            return False
        ids.extend(examples[0].ids)
        return True

    def carries_ids(batch: Any) -> bool:
        rows = batch.ids.tolist() if isinstance(batch, MicroBatch) else []
        return any(row[at : at + len(ids)] == ids for row in rows for at in range(len(row) - len(ids) + 1))

    def is_in_training(moment: Moment) -> bool:
        frame: FrameType | None = moment.frame
        while frame is not None and not any(carries_ids(value) for value in frame.f_locals.values()):
            frame = frame.f_back
        return frame is not None and moment.below("training_step")

    return [
        Milestone("row read from the file", is_row, at_return=True),
        Milestone(
            "conversation built", lambda m: isinstance(m.value, Conversation) and MARK in repr(m.value), at_return=True
        ),
        Milestone(
            "its text tokenized",
            lambda moment: MARK in repr(moment.arguments.get("text")),
            outside=("transformers/tokenization_utils_base.py", "__call__"),
        ),
        Milestone("ids and labels encoded", is_encoded, at_return=True),
        Milestone("micro-batch made", lambda moment: carries_ids(moment.value), at_return=True),
        Milestone("model called", is_in_training, outside=("torch/nn/modules/module.py", "_call_impl")),
        Milestone("loss summed", is_in_training, outside=("torch/nn/functional.py", "cross_entropy")),
    ]


def optimizer_milestones() -> list[Milestone]:
    """From `optimizer=sgd lr=...` to the optimizer that trains."""
    from tunelab.config.schema import RunConfig

    def are_groups(moment: Moment) -> bool:
        groups = moment.value
        return isinstance(groups, list) and bool(groups) and isinstance(groups[0], dict) and "params" in groups[0]

    return [
        Milestone("key `lr` validated", lambda moment: isinstance(moment.value, RunConfig), at_return=True),
        Milestone("parameter groups made", lambda m: m.below("configure_optimizers") and are_groups(m), at_return=True),
        Milestone(
            "torch.optim.SGD entered",
            lambda moment: moment.below("configure_optimizers"),
            outside=("torch/optim/sgd.py", "__init__"),
        ),
    ]


def search_milestones() -> list[Milestone]:
    """From a command line with `-m` to the result of a trial, in the process of the search."""
    from tunelab.search.trial_outcome import TrialOutcome

    return [
        Milestone("value of a setting drawn", outside=("optuna/trial/_trial.py", "_suggest")),
        Milestone("training process started", lambda moment: moment.frame.f_code.co_name == "fork"),
        Milestone("result of the process read", lambda m: isinstance(m.value, TrialOutcome), at_return=True),
        Milestone("study learns of it", outside=("optuna/study/study.py", "tell")),
        Milestone("trials.jsonl written", lambda moment: has_path(moment, "trials.jsonl")),
    ]


def report_milestones() -> list[Milestone]:
    """From the folder of a study to its page."""
    return [
        Milestone("trials read", lambda moment: has_path(moment, "trials.jsonl")),
        Milestone("importance computed", outside=("optuna/importance/__init__.py", "get_param_importances")),
        Milestone("chart drawn", lambda m: isinstance(m.value, str) and m.value.startswith("<svg"), at_return=True),
        Milestone("report.html written", lambda moment: has_path(moment, "report.html")),
    ]


def has_path(moment: Moment, name: str) -> bool:
    """Whether a path of this name is handed to the function."""
    return any(isinstance(value, Path) and value.name == name for value in moment.arguments.values())


@dataclass(frozen=True)
class Walk:
    """One walk: its milestones, and the command that is traced.

    Attributes:
        command: The command as a user types it, for the page.
        milestones: Makes the milestones, in order.
        arguments: Makes what it needs in a folder; returns the arguments of the traced command.
    """

    command: str
    milestones: Callable[[], list[Milestone]]
    arguments: Callable[[Path], list[str]]


def instruction_arguments(folder: Path) -> list[str]:
    """Settings of a tiny training on instructions, one of them marked."""
    from support.tiny_runs import write

    records = [{"instruction": f"say {i}", "output": f"it is {i}"} for i in range(8)]
    records[3]["output"] += f" {MARK}"
    train, held_out = write(folder / "train.jsonl", records), write(folder / "held_out.jsonl", records[4:])
    files = [f"data.train={train}", f"data.validation={held_out}", f"data.test={held_out}"]
    return ["data=instruction", *files, *TINY, f"hydra.run.dir={folder / 'run'}"]


def search_arguments(folder: Path) -> list[str]:
    """A search with one trial, which the sampler proposes."""
    run = [word for word in instruction_arguments(folder) if not word.startswith(("hydra.", "save="))]
    space = ["lr=interval(1e-4,1e-3)", "search.trials=1", "search.default_trial=false"]
    return ["-m", *run, "search=bayes", *space, f"hydra.sweep.dir={folder / 'study'}"]


def report_arguments(folder: Path) -> list[str]:
    """The report of a study that nobody trained."""
    from support.made_up_studies import study

    return ["report", str(study(folder / "study"))]


WALKS = {
    "record to loss": Walk("python train.py data=instruction", record_milestones, instruction_arguments),
    "key to optimizer": Walk(
        "python train.py optimizer=sgd lr=1e-2",
        optimizer_milestones,
        lambda folder: ["optimizer=sgd", "lr=1e-2", *instruction_arguments(folder)],
    ),
    "sweep to result": Walk(
        "python train.py -m search=bayes lr='interval(1e-4,1e-3)'", search_milestones, search_arguments
    ),
    "study to page": Walk("tunelab report STUDY", report_milestones, report_arguments),
}


def trace_here(name: str) -> dict[str, list[str]]:
    """Trace a walk in this process, which is to be a fresh one; the files on the stack at each milestone."""
    import tunelab.report.compose
    import tunelab.search.run_search
    import tunelab.training.run  # all that is imported before the trace needs no trace  # noqa: F401
    from tunelab.cli.main import main

    walk = WALKS[name]
    with tempfile.TemporaryDirectory() as place:
        sys.argv[1:] = walk.arguments(Path(place))
        tracer = Tracer(walk.milestones())
        sys.setprofile(tracer)
        try:
            if walk.command.startswith("tunelab"):
                main()
            else:
                runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as end:
            assert not end.code, f"{walk.command} ended with {end.code}"
        finally:
            sys.setprofile(None)
    assert not tracer.milestones, f"{name}: never reached: {', '.join(ahead.name for ahead in tracer.milestones)}"
    return tracer.stacks


def trace(name: str) -> dict[str, list[str]]:
    """Trace a walk in a process of its own."""
    command = [sys.executable, "-m", "support.walks", name]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    stacks: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return stacks


def new_files(stacks: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """At each milestone the files that no stack before it had."""
    seen: set[str] = set()
    fresh: dict[str, list[str]] = {}
    for name, files in stacks.items():
        fresh[name] = [file for file in files if file not in seen]
        seen |= set(files)
    return fresh


def walk_text(name: str, stacks: Mapping[str, Sequence[str]]) -> str:
    """A walk as Markdown: a line for each milestone with the files that are new there."""
    fresh = new_files(stacks)
    count = sum(map(len, fresh.values()))
    lines = [
        f"{reached} | {', '.join(f'`{file}`' for file in files) or 'no other'}" for reached, files in fresh.items()
    ]
    head = f"### {name.capitalize()}: {count} files\n`{WALKS[name].command}`\n\n| milestone | files, outermost first |"
    return "\n".join([head, "|---|---|", *(f"| {line} |" for line in lines)])


def tree_text() -> str:
    """Packages and modules of `src/tunelab`, each package with the first paragraph of its docstring."""
    lines = ["```text", "src/tunelab/"]
    for folder in sorted({path.parent for path in Path(SRC).rglob("*.py")}):
        summary = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        package = folder.relative_to(SRC).as_posix()
        if package != ".":
            text = f"{package}/  {' '.join(summary.partition(chr(10) * 2)[0].split())}"
            lines += ["", *wrap(text, 118, initial_indent="  ", subsequent_indent="      ")]
        names = " ".join(sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__"))
        lines += wrap(names, 118, initial_indent="    ", subsequent_indent="    ")
    return "\n".join([*lines, "```"])


def with_block(page: str, name: str, text: str) -> str:
    """A page with the text between `<!-- NAME -->` and `<!-- /NAME -->` replaced."""
    before, opening, rest = page.partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    assert opening and closing, f"the page has no block {name}"
    return f"{before}{opening}{text}\n{closing}{after}"


def write_block(name: str, text: str) -> None:
    """Replace a block of docs/design.md."""
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def write_all() -> None:
    """Trace all walks, print them with the number of files that was aimed at, and write them and the tree."""
    texts = []
    for name, aim in AIMS.items():
        texts.append(walk_text(name, trace(name)))
        print(f"{texts[-1]}\n(the aim: about {aim} files)\n", flush=True)
    write_block("tree", tree_text())
    write_block("walks", "\n\n".join(texts))


def main() -> None:
    """Write everything; with `tree` the tree alone; with the name of a walk trace it here and print its stacks."""
    match sys.argv[1:]:
        case []:
            write_all()
        case ["tree"]:
            write_block("tree", tree_text())
        case [name]:
            stacks = trace_here(name)
            print()
            print(json.dumps(stacks))


if __name__ == "__main__":
    main()
