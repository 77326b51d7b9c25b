"""What started the processes of a run: torchrun, srun, or nothing, so that it starts them itself.

Loads torch only where one of them did.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

LAUNCHER_MARKS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")  # one of these variables is set by every launcher


@cache
def launched_by() -> "ClusterEnvironment | None":
    """What started the processes of this run, as Lightning sees it; None where the run starts its own.

    Raises:
        ConfigError: If SLURM does not say how many processes each machine has.
    """
    if os.environ.keys().isdisjoint(LAUNCHER_MARKS):
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # takes half a second
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if not SLURMEnvironment.detect() or is_one_slurm_task():
        return None
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ConfigError(
            translate(
                "SLURM gives this job {tasks} processes and does not say how many on each machine; start it by srun "
                "with --ntasks-per-node",
                tasks=os.environ["SLURM_NTASKS"],
            )
        )
    return SLURMEnvironment()


def is_one_slurm_task() -> bool:
    """Whether SLURM started this process alone, which starts those of its other devices itself."""
    return os.environ.get("SLURM_NTASKS") == "1"


def check_started_alone(subject: str) -> None:
    """Check that torchrun or srun did not start several processes of something that starts its own.

    Raises:
        ConfigError: If one did.
    """
    environment = launched_by()
    if environment is not None and environment.world_size() > 1:
        raise ConfigError(
            translate(
                "{subject} under torchrun or srun with {count} [process|processes]: start one; it starts those of "
                "trainer.devices",
                subject=subject,
                count=environment.world_size(),
            )
        )
