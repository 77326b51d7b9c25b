"""A preview of a large file is kept: the next one of the same shows the same, and one of anything else is made."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from support.paths import ROOT
from support.tiny_runs import MODEL, instructions, labelled, write
from tunelab.cli import kept_preview, preview_command
from tunelab.cli.main import run_command
from tunelab.language.translation import configure_language

STARTER = ROOT / "src" / "tunelab" / "starter" / "model"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which previews are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TUNELAB_LANG", raising=False)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "cache" / "tunelab" / "data"
    configure_language(None)


class Previews:
    """Previews in this process, with a count of those that were made anew."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.made = capsys, 0
        make = preview_command.make_preview

        def count(*arguments):  # type: ignore[no-untyped-def]
            self.made += 1
            return make(*arguments)

        monkeypatch.setattr(preview_command, "make_preview", count)

    def show(self, *words: str) -> tuple[str, str, str]:
        """What is printed, on both streams, and the page."""
        self.capsys.readouterr()
        Path("page.html").unlink(missing_ok=True)
        assert run_command(["preview", *words, "data.in_memory=0", "--output", "page.html"]) == 0
        said = self.capsys.readouterr()
        return said.out, said.err, Path("page.html").read_text(encoding="utf-8")


@pytest.fixture
def previews(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Previews:
    return Previews(capsys, monkeypatch)


def tokenizer_folder(folder: Path) -> Path:
    """A folder with the tokenizer and the config of the built-in model, and no weights."""
    folder.mkdir()
    for file in STARTER.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    return folder


@pytest.mark.parametrize("task", ["instruction", "classification", "regression", "preference"])
def test_the_second_preview_shows_what_the_first_one_did(task: str, tmp_path: Path, previews: Previews) -> None:
    pairs = [{"prompt": f"p {row}", "chosen": f"yes {row}", "rejected": f"no {row}"} for row in range(60)]
    file = {"instruction": lambda: instructions(tmp_path, 60), "preference": lambda: write(tmp_path / "p.jsonl", pairs)}
    columns = {"classification": ["data.text=text", "data.label=label"],
               "regression": ["data.text=text", "data.target=number"]}  # fmt: skip
    path = file.get(task, lambda: labelled(tmp_path))()
    words = [f"data={task}", f"data.train={path}", *columns.get(task, ())]

    cold = previews.show(*words)
    warm = previews.show(*words)

    assert previews.made == 1
    assert warm == cold and warm[0] and not warm[1]


def test_each_change_has_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, model, template = tmp_path / "rows.jsonl", tokenizer_folder(tmp_path / "model"), tmp_path / "own.jinja"
    file.write_text("{}\n")
    template.write_text("a")
    data = {"keep_prepared": True, "task": "instruction", "train": str(file), "template": str(template)}
    values = {"data": data, "model": {"path": str(model)}, "seed": 1}
    places = [kept_preview.preview_place(values, (3, "train"))]
    assert kept_preview.preview_place({**values, "data": {**data}}, (3, "train")) in places

    def change(made: kept_preview.PreviewPlace | None) -> None:
        assert made is not None and made not in places
        places.append(made)

    change(kept_preview.preview_place(values, (2, "train")))
    change(kept_preview.preview_place(values, (3, "test")))
    change(kept_preview.preview_place({**values, "seed": 2}, (3, "train")))
    file.write_text("[]\n")
    change(kept_preview.preview_place(values, (3, "train")))
    template.write_text("b")
    change(kept_preview.preview_place(values, (3, "train")))
    (model / "tokenizer.json").write_text("{}")
    change(kept_preview.preview_place(values, (3, "train")))
    (model / "added").mkdir()
    (model / "added" / "template.jinja").write_text("c")
    change(kept_preview.preview_place(values, (3, "train")))
    (model / "model.safetensors").write_bytes(b"few")
    change(kept_preview.preview_place(values, (3, "train")))
    monkeypatch.setenv("TUNELAB_LANG", "zh")
    change(kept_preview.preview_place(values, (3, "train")))
    configure_language("en")
    monkeypatch.setattr(kept_preview, "date", FixedDay)
    change(kept_preview.preview_place(values, (3, "train")))


class FixedDay(date):
    """A clock that stands still."""

    @classmethod
    def today(cls) -> "FixedDay":
        return cls(2001, 2, 3)


@pytest.mark.slow
def test_what_is_changed_is_shown_anew(tmp_path: Path, previews: Previews, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a preview of a file, a tokenizer and a template of one's own
    file, model = instructions(tmp_path, 60), tokenizer_folder(tmp_path / "model")
    template = tmp_path / "own.jinja"
    template.write_text(
        "{%- for m in messages %}{{ '<|' + m.role + '|>' + m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    words = ["data=instruction", f"data.train={file}", f"model.path={model}", f"data.template={template}"]
    first = previews.show(*words)
    assert previews.show(*words) == first and previews.made == 1

    def shows_anew(*more: str) -> None:
        before = previews.made
        cold = previews.show(*words, *more)
        assert previews.made == before + 1
        assert previews.show(*words, *more) == cold
        assert previews.made == before + 1

    # When one thing is another
    shows_anew("--rows", "2")
    shows_anew("--split", "validation")
    shows_anew("seed=5")
    shows_anew("data.max_tokens=40")
    shows_anew("lang=zh")
    configure_language(None)
    monkeypatch.setenv("TUNELAB_LANG", "zh")
    shows_anew()
    monkeypatch.delenv("TUNELAB_LANG")
    assert previews.show(*words) == first
    stamp = file.stat()
    text = file.read_text()
    file.write_text(text.replace("0", "1", 1))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # of the same size and time
    assert file.stat().st_size == stamp.st_size
    shows_anew()
    file.write_text(text)
    template.write_text(f"Hi {template.read_text()}")
    shows_anew()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    shows_anew()
    (model / "config.json").write_text((model / "config.json").read_text().replace("{", '{"unused": 1,', 1))
    shows_anew()
    monkeypatch.setattr(kept_preview, "code_hash", lambda: "another version")
    shows_anew()
    monkeypatch.setattr(kept_preview, "installed_packages", lambda: ["tokenizers-99.dist-info"])
    shows_anew()


def test_a_kept_preview_needs_no_torch(tmp_path: Path) -> None:
    file = instructions(tmp_path, 60)
    code = (
        "import sys\nfrom tunelab.cli.main import run_command\n"
        "status = run_command(sys.argv[1:])\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    words = ["preview", "data=instruction", f"data.train={file}", "data.in_memory=0", "--output", "page.html"]
    command = [sys.executable, "-P", "-c", code, *words]

    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout for _ in range(2)
    ]

    assert [output.split()[-2:] for output in outputs] == [["True", "True"], ["False", "False"]]
    assert outputs[0].splitlines()[:-1] == outputs[1].splitlines()[:-1]


def test_nothing_is_kept_of_what_is_small_or_not_known(
    tmp_path: Path, previews: Previews, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path, 60)}", *MODEL]

    previews.show(*words, "data.keep_prepared=false")
    assert run_command(["preview", *words, "--output", "page.html"]) == 0  # a small file
    monkeypatch.setattr(preview_command, "make_preview", changing(preview_command.make_preview, tmp_path))
    previews.show(*words)  # a file that changes meanwhile

    assert not [*cache.glob("preview-*")]


def changing(make, folder: Path):  # type: ignore[no-untyped-def]
    """A preview during which its file gets another row."""

    def make_and_change(*arguments):  # type: ignore[no-untyped-def]
        shown = make(*arguments)
        instructions(folder, 61)
        return shown

    return make_and_change


def test_code_of_ones_own_and_models_of_a_hub_are_looked_at_each_time() -> None:
    values = {
        "data": {"keep_prepared": True, "task": "instruction", "format": "auto"},
        "model": {"path": str(STARTER), "tokenizer": None},
        "module": {"_target_": "tunelab.training.module.FineTuner"},
    }
    assert kept_preview.preview_place(values, ()) is not None

    for block, key, value in [
        ("module", "_target_", "mylab.Tuner"),
        ("data", "task", "mylab.tasks.Mine"),
        ("data", "format", "mylab.formats.dialogue"),
        ("data", "streaming", True),
        ("data", "keep_prepared", False),
        ("model", "path", "owner/name"),
        ("model", "tokenizer", "owner/name"),
        ("data", "train", "/dev/zero"),
    ]:
        changed = {**values, block: {**values[block], key: value}}
        assert kept_preview.preview_place(changed, ()) is None, (block, key)
    assert kept_preview.preview_place({**values, "resume": "outputs/run"}, ()) is None


def test_a_damaged_preview_is_made_anew(tmp_path: Path, previews: Previews, cache: Path) -> None:
    words = ["data=instruction", f"data.train={instructions(tmp_path, 60)}", *MODEL]
    cold = previews.show(*words)
    (kept,) = cache.glob("preview-*")
    assert kept.stat().st_mode & 0o777 == 0o600
    whole = kept.read_bytes()

    for damaged in (b"", whole[:-9], whole.replace(b"train", b"tr4in", 1), b"0\n{}"):
        kept.write_bytes(damaged)
        before = previews.made
        assert previews.show(*words) == cold
        assert previews.made == before + 1
        assert kept.read_bytes() == whole


def test_the_previews_of_longest_ago_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_preview, "MAX_KEPT", 3)
    shown = kept_preview.PreviewContent("run", {}, [], "", [], "page")

    for number in range(5):
        place = kept_preview.PreviewPlace(tmp_path / f"preview-{number}.json")
        place.keep(shown)
        os.utime(place.file, (number, number))

    assert sorted(file.name for file in tmp_path.glob("preview-*")) == [f"preview-{n}.json" for n in (2, 3, 4)]
    assert place.read() == shown
