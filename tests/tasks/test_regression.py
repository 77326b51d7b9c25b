"""Regression: targets, standardisation, loss, predictions, the folded head."""

import doctest

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForSequenceClassification

from tunelab.errors import ConfigError, DataError
from tunelab.tasks import regression
from tunelab.tasks.regression import Regression

RECORDS = [
    {"text": "good film", "x": 9, "y": "-1.5"},
    {"text": "bad plot", "x": "2.0", "y": 3},
    {"text": "the film was not very long", "x": 5.5, "y": "1e1"},
]


def ready(tokenizer, target=("x", "y"), **options):
    task = Regression("text", target, **options)
    task.fit(RECORDS)
    task.set_tokenizer(tokenizer, None)
    return task


def laid_out(task):
    return task.collate([task.encode(record, row) for row, record in enumerate(RECORDS)])


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(regression).failed == 0
    assert doctest.testmod(regression).attempted > 0


def test_targets_are_standardised_as_by_scikit_learn(make_tokenizer):
    task = ready(make_tokenizer())
    own = [[9, -1.5], [2, 3], [5.5, 10]]
    scaler = StandardScaler().fit(own)
    assert task.mean == pytest.approx(scaler.mean_.tolist())
    assert task.std == pytest.approx(scaler.scale_.tolist())
    micro = laid_out(task)
    assert micro.targets.dtype == torch.float32
    torch.testing.assert_close(micro.targets, torch.tensor(scaler.transform(own)).float())


def test_targets_stay_as_they_are_when_asked(make_tokenizer):
    assert laid_out(ready(make_tokenizer(), standardise=False)).targets.tolist() == [[9, -1.5], [2, 3], [5.5, 10]]


def test_perfect_predictions_come_back_in_the_units_of_the_user(make_tokenizer):
    task = ready(make_tokenizer())
    micro = laid_out(task)
    found = task.predictions(None, micro, micro.targets, RECORDS)
    assert [row["row"] for row in found] == [0, 1, 2]
    assert found[0]["target"] == {"x": 9.0, "y": -1.5}
    for row in found:
        assert row["prediction"] == pytest.approx(row["target"], abs=1e-5)
    scores = task.scores()
    scores.update(micro.targets, micro)
    computed = scores.compute()
    assert set(computed) == set(task.score_names)
    assert computed["mse"] == 0
    assert computed["pearson"] == pytest.approx(1)


def test_one_target_is_a_plain_number_and_a_filler_has_no_prediction(make_tokenizer):
    task = ready(make_tokenizer(), target="x")
    micro = task.collate([task.encode(RECORDS[0], 4), task.padding_example()])
    (found,) = task.predictions(None, micro, micro.targets, RECORDS[:1])
    assert found == {"row": 4, "text": "good film", "target": 9.0, "prediction": pytest.approx(9.0)}


def test_the_loss_of_a_step_is_the_mean_squared_error_however_it_is_cut(make_tokenizer):
    task = ready(make_tokenizer())
    examples = [task.encode(record, row) for row, record in enumerate(RECORDS)]
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    cut = [slice(0, 1), slice(1, 3)]
    total = sum(task.loss_sum(logits[part], task.collate(examples[part])) for part in cut)
    filler = task.loss_sum(logits[:1], task.collate([task.padding_example()]))
    targets = task.collate(examples).targets
    assert filler == 0
    torch.testing.assert_close(total / 3, torch.nn.functional.mse_loss(logits, targets))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("high", "not a number"),
        ("1,5", "use a dot"),
        ("nan", "nothing can be learned"),
        (float("inf"), "nothing can be learned"),
        (None, "fill it in"),
        (True, "not a number"),
        ([1.0], "not a number"),
    ],
)
def test_a_target_that_is_no_number_is_told_with_its_column(value, said):
    with pytest.raises(DataError, match=f"column 'y' holds .*{said}"):
        Regression("text", ["x", "y"]).check_target({"text": "a", "x": 1, "y": value})


def test_a_target_that_never_changes_is_refused():
    with pytest.raises(DataError, match="target 'z' is 7.0 in every record"):
        Regression("text", ["x", "z"]).fit([{**record, "z": 7} for record in RECORDS])


def test_targets_must_be_named_once():
    for target in ([], ["x", "x"]):
        with pytest.raises(ConfigError, match="each once"):
            Regression("text", target)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_an_exported_encoder_gives_values_in_the_units_of_the_user(family, make_model, make_tokenizer, tmp_path):
    task = ready(make_tokenizer())
    model, micro = make_model(family, **task.head_options()), laid_out(task)
    with torch.no_grad():
        wanted = task.logits(model, micro) * torch.tensor(task.std) + torch.tensor(task.mean)
        assert task.finalize_model(model) is None
        model.save_pretrained(tmp_path)
        reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
        found = torch.cat([reloaded(input_ids=micro.ids[i : i + 1, :n]).logits for i, n in enumerate(micro.lengths)])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (reloaded.config.target_mean, reloaded.config.target_std) == ([0.0, 0.0], [1.0, 1.0])
    assert reloaded.config.problem_type == "regression"
    assert reloaded.config.id2label == {0: "x", 1: "y"}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_head_without_bias_stays_and_the_config_tells_how_to_read_it(family, make_model, make_tokenizer, tmp_path):
    task = ready(make_tokenizer(decoder=False))
    model, micro = make_model(family, **task.head_options()), laid_out(task)
    with torch.no_grad():
        before = task.logits(model, micro)
        warning = task.finalize_model(model)
        model.save_pretrained(tmp_path)
        reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
        torch.testing.assert_close(task.logits(reloaded, micro), before)
    assert "no bias" in warning
    assert (reloaded.config.target_mean, reloaded.config.target_std) == (task.mean, task.std)


def test_raw_targets_need_no_folding_and_no_warning(make_model, make_tokenizer):
    task = ready(make_tokenizer(), standardise=False)
    model = make_model("llama", **task.head_options())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert task.finalize_model(model) is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
