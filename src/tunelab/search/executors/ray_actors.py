"""Trials on a Ray cluster: `search.executor=ray`, with the extra `ray`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tunelab.errors import ConfigError
from tunelab.language.translation import translate
from tunelab.search.trial_process import Executor, Job, LocalExecutor, LocalJob

LOST_STATUS = -9  # exit status of a trial whose node is lost


class RayJob:
    """One trial, watched by an actor on the node that runs it."""

    reference = ""  # adopted by its run directory, if its process is on this machine

    def __init__(self, ray: Any, actor: Any) -> None:
        self.ray, self.actor = ray, actor

    def poll(self) -> int | None:
        try:
            status: int | None = self.ray.get(self.actor.poll.remote())
        except self.ray.exceptions.RayActorError:
            return LOST_STATUS
        if status is not None:
            self.ray.kill(self.actor)
        return status

    def stop(self) -> None:
        self.actor.stop.remote()

    def kill(self) -> None:
        self.actor.kill.remote()


class RayExecutor(Executor):
    """Starts each trial as an actor, on a node that Ray chooses.

    Args:
        options: Arguments of `ray.init`; without `address` a local cluster is started.
        devices: GPUs of one trial.

    Raises:
        ConfigError: If Ray is not installed, or no cluster answers.
    """

    def __init__(self, options: Mapping[str, Any], devices: int) -> None:
        try:
            import ray
        except ImportError as fault:
            raise ConfigError(
                translate("search.executor=ray needs the package ray; pip install -e '.[ray]'")
            ) from fault
        try:
            if not ray.is_initialized():
                ray.init(**{"include_dashboard": False, "log_to_driver": False, "configure_logging": False, **options})
        except (ConnectionError, TypeError, ValueError, RuntimeError) as fault:
            raise ConfigError(
                translate(
                    "search.executor_options={options}: {fault}; they are those of ray.init",
                    options=dict(options),
                    fault=fault,
                )
            ) from fault
        self.ray = ray
        resources = getattr(ray, "cluster_resources")()  # noqa: B009  # ray gives it no type
        gpus = devices if resources.get("GPU") else 0
        self.actor = ray.remote(num_cpus=1, num_gpus=gpus)(LocalJob)

    @override
    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Job:
        variables = {k: v for k, v in environment.items() if k != "CUDA_VISIBLE_DEVICES"}  # Ray assigns the devices
        return RayJob(self.ray, self.actor.remote(list(command), folder, variables))

    @override
    def adopt(self, reference: str, folder: Path) -> Job | None:
        return LocalExecutor().adopt(reference, folder)  # an actor dies with its engine; its training may not
