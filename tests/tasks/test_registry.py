"""Tasks by name: their descriptions without torch, their classes, and names that are none."""

import subprocess
import sys

import pytest

from tunelab.errors import ConfigError
from tunelab.tasks.metrics.directions import metric_direction
from tunelab.tasks.registry import DESCRIPTIONS, describe_task, import_task


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_name_leads_to_its_class_and_both_describe_it_alike(name: str) -> None:
    task = import_task(name)
    assert (task.name, task.description) == (name, describe_task(name))


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_the_monitored_and_the_headline_scores_have_a_direction(name: str) -> None:
    description = describe_task(name)
    assert all(metric_direction(score) for score in (description.monitor, *description.headline_scores))


def test_a_class_is_named_by_its_module() -> None:
    assert import_task("tunelab.tasks.regression.Regression") is import_task("regression")


@pytest.mark.parametrize("name", ["classifcation", "tunelab.tasks.base.Task", "tunelab.errors.DataError", "os.system"])
def test_a_name_that_is_no_task_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"data.task={name} is no task"):
        import_task(name)


def test_descriptions_and_directions_load_no_torch() -> None:
    code = "import sys; from tunelab.tasks import registry; from tunelab.tasks.metrics import directions; "
    code += (
        "registry.describe_task('classification'); directions.metric_direction('val/f1'); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
