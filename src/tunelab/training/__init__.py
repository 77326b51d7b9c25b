"""From checked settings to a trained, evaluated and recorded model."""

from tunelab.training.quick_imports import import_torchmetrics

import_torchmetrics()
