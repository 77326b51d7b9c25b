"""TRL's own chat templates, as today's families have them: the same ids, and the same tokens learned, or why not.

TRL masks by generation blocks in marked copies of the templates.  `python -m differential.template_coverage`, run in
`tests/`, writes the table in `docs/correctness.md`.
"""

import pytest

from differential.template_coverage import FAMILIES, RECORDS, compare_family, template_folder

pytestmark = pytest.mark.skipif(template_folder() is None, reason="TRL is not installed: pip install -e '.[trl]'")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_of_trl_gives_the_same_ids_and_learns_the_same_answers(family: str) -> None:
    outcomes = compare_family(family)

    assert set(outcomes) == set(RECORDS)
    single = {name: outcome for name, outcome in outcomes.items() if outcome.sequences == 1 and outcome.known_to_trl}
    assert single
    for name, outcome in single.items():
        assert outcome.ids_equal, (family, name)
        # of what TRL learns we leave out the blanks after an end, and what the prompt has given already
        assert outcome.mask_equal or outcome.mask_explained, (family, name)
