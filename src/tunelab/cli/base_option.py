"""The option of the commands that load a trained run on its base model."""

import argparse

from tunelab.language.translation import translate


def add_base_option(parser: argparse.ArgumentParser) -> None:
    """Add `--allow-changed-base`."""
    parser.add_argument(
        "--allow-changed-base",
        action="store_true",
        help=translate(
            "use an adapter on base weights that it was not trained on; its answers are those of another model"
        ),
    )
