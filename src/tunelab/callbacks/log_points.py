"""Which steps are logged: what costs time is measured in those only."""

from lightning import Trainer


def is_log_step(trainer: Trainer) -> bool:
    """Whether what is logged in the present step is passed on, by Lightning's own count."""
    every = int(getattr(trainer, "log_every_n_steps", 0))  # set by its logger connector, so not declared
    return every > 0 and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0
