"""`search.effect` leaves a drawing, its numbers and a sentence, and refuses what does not vary."""

import json
from pathlib import Path

import pytest

from tunelab.config.schema import EffectConfig
from tunelab.errors import ConfigError
from tunelab.runs.study_folder import StudyFolder
from tunelab.search.space import build_space
from tunelab.search.study_artifacts import EffectPlot, parse_effect_plot, write_effect_plot

SPACE = build_space({"lr": [0.1, 0.2], "seed": [0, 1]}, {}, {})


def test_a_search_that_asks_for_no_effect_draws_none() -> None:
    assert parse_effect_plot(EffectConfig(), SPACE) is None


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"of": "batch_size", "by": None}, "search.effect.of=batch_size: that setting does not vary"),
        ({"of": "lr", "by": "model"}, "search.effect.by=model: that setting does not vary"),
        ({"of": None, "by": "lr"}, "needs search.effect.of"),
    ],
)
def test_an_effect_of_what_does_not_vary_is_refused(block: dict[str, str | None], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_effect_plot(EffectConfig(**block), SPACE)


def test_the_page_the_numbers_and_the_sentence_agree(tmp_path: Path) -> None:
    # Given a ledger of four trials
    lines = [
        {"state": "complete", "value": rate + seed / 100, "params": {"lr": rate, "seed": seed}}
        for rate in (0.1, 0.9)
        for seed in (0, 1, 2)
    ]
    folder = StudyFolder(tmp_path)
    folder.trials.write_text("".join(json.dumps(line) + "\n" for line in lines))

    # When the effect is drawn
    words = write_effect_plot(folder, EffectPlot("lr", None), "val/loss", lower=True, command="python train.py -m <lr>")

    # Then all three files tell the same
    facts = json.loads((tmp_path / "effect.json").read_text())
    page = (tmp_path / "effect.html").read_text()
    assert facts["finding"] == words and words in page
    assert [arm["mean"] for arm in facts["arms"]] == pytest.approx([0.11, 0.91])
    assert (tmp_path / "effect.svg").read_text().partition("</style>")[2] in page
    assert "&lt;lr&gt;" in page and "6 of 6 trials came through" in page
