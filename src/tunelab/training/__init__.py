"""From checked settings to a trained, evaluated and recorded model."""

from tunelab.runs.garbage import packages_loading

with packages_loading():
    from tunelab.training.quick_imports import import_torchmetrics

    import_torchmetrics()
    import transformers.modeling_utils  # noqa: F401  # with torch._dynamo: the other half of what every command needs
