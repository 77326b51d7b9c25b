"""The built-in model on a user's own data says that it is a demonstration."""

from pathlib import Path

from support.tiny_runs import MODEL, instructions, settings
from tunelab.training.lifecycle import demo_model_notes


def test_the_built_in_model_on_data_of_ones_own_says_what_it_is(tmp_path: Path) -> None:
    own = ["data=instruction", f"data.train={instructions(tmp_path)}"]

    (note,) = demo_model_notes(settings(*own))

    assert "demonstration of one million parameters" in note
    assert "model.path=" in note
    assert demo_model_notes(settings()) == [], "on its own data"
    assert demo_model_notes(settings(*own, *MODEL)) == [], "another model"
