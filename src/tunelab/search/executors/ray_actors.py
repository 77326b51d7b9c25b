"""Trials on a Ray cluster: `search.executor=ray`, with the extra `ray`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab.errors import ConfigError
from tunelab.search.trial_process import Job, LocalExecutor, LocalJob

LOST_STATUS = -9  # exit status of a trial whose node is gone


class RayJob:
    """One trial, watched by an actor on the node that runs it."""

    reference = ""  # its process is found by its run folder, or its folder falls silent

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor

    def poll(self) -> int | None:
        try:
            found: int | None = self.ray.get(self.actor.poll.remote())
        except self.ray.exceptions.RayActorError:
            return LOST_STATUS
        if found is not None:
            self.ray.kill(self.actor)
        return found

    def stop(self) -> None:
        self.actor.stop.remote()

    def kill(self) -> None:
        self.actor.kill.remote()


class RayExecutor:
    """Starts each trial where Ray finds room.

    Args:
        options: Arguments of `ray.init`; `address` names a cluster, without it one is started here.
        devices: GPUs of a trial.

    Raises:
        ConfigError: If Ray is not installed, or no cluster answers.
    """

    def __init__(self, options: Mapping[str, Any], devices: int) -> None:
        try:
            import ray
        except ImportError as fault:
            raise ConfigError("search.executor=ray needs the package ray; pip install 'tunelab[ray]'") from fault
        try:
            if not ray.is_initialized():
                ray.init(**{"include_dashboard": False, "log_to_driver": False, "configure_logging": False, **options})
        except (ConnectionError, TypeError, ValueError, RuntimeError) as fault:
            raise ConfigError(
                f"search.executor_options={dict(options)}: {fault}; they are those of ray.init"
            ) from fault
        self.ray = ray
        there = getattr(ray, "cluster_resources")()  # noqa: B009  # ray gives it no type
        gpus = devices if there.get("GPU") else 0
        self.actor = ray.remote(num_cpus=1, num_gpus=gpus)(LocalJob)

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        own = {
            name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"
        }  # Ray hands them out
        return RayJob(self.ray, self.actor.remote(list(command), folder, own))

    def adopt(self, reference: str, folder: Path) -> Job | None:
        return LocalExecutor().adopt(
            reference, folder
        )  # an actor dies with its engine, the training it started may not
