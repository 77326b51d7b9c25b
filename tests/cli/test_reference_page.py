"""docs/reference.md says what the comments in conf/ say."""

from support.paths import ROOT
from tunelab.cli.config_comments import group_options
from tunelab.cli.reference_page import render_reference


def test_the_reference_is_what_the_comments_say_today() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == render_reference(ROOT / "conf"), (
        "run `make reference`"
    )


def test_every_option_is_there_and_keys_have_the_names_that_the_command_line_takes() -> None:
    page = render_reference(ROOT / "conf")
    assert all(f"| `{option.name}`" in page for option in group_options(ROOT / "conf"))
    assert "| `trainer.gradient_clip_val` |" in page
    assert "| `adapter.kind` |" in page
    assert "| `optimizer._target_` |" in page
    assert "| `optimizer.optimizer" not in page


def test_a_key_that_options_share_stands_once_with_the_option_in_force() -> None:
    page = render_reference(ROOT / "conf")
    assert page.count("| `adapter.layer_decay` |") == 1
    assert page.index("`adapter=full`\n") < page.index("`adapter=dora`\n")
