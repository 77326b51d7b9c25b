"""Train one model.  `python train.py --help` says what you can change."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while packages load ends at once, without a traceback

import hydra
from omegaconf import DictConfig

from tunelab.cli import help_page
from tunelab.cli.launch import CONF, exit_on_user_error, launch

help_page.register_help_resolvers(CONF)  # --help is made from the comments in conf/


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | None:
    """Run what the config describes and return the score a search optimises."""
    from tunelab.training.run import run  # torch and transformers load here, so that --help stays instant

    with exit_on_user_error():
        return run(config)


if __name__ == "__main__":
    launch(main)
