"""From settings to the layout of rows: asked of the model where, and in the precision in which, it will train."""

from transformers import PreTrainedModel

from tunelab.equipment import precision
from tunelab.models.layout import choose_layout, fast_kernels
from tunelab.reference import at_work, training_device
from tunelab.settings import Run
from tunelab.tasks.base import Task
from tunelab.tasks.causal import Causal


def lay_out(settings: Run, task: Task, model: PreTrainedModel) -> None:
    """Choose the rows of a causal task, and give the model the attention they need; other tasks pad.

    Raises:
        ConfigError: If the settings demand what this model cannot do.
    """
    if isinstance(task, Causal):
        device = training_device(str(settings.trainer["accelerator"]))
        half = str(precision(settings.trainer["precision"])).startswith("bf16")
        task.flat = choose_layout(
            model,
            packing=settings.data["packing"],
            attention=str(settings.model["attention"]),
            kernels=fast_kernels(device.type, half=half),
            loops=device.type != "cuda",
            at_work=lambda: at_work(model, settings),
        )
