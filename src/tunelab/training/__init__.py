"""From checked settings to a trained, evaluated and recorded model."""

from tunelab.runs.garbage import packages_loading
from tunelab.training.quick_imports import import_torchmetrics, import_transformers

with packages_loading():
    import_torchmetrics()
    import_transformers()
