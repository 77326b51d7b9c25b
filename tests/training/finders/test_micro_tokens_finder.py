"""The largest count that fits, against the count itself."""

from tunelab.training.finders.micro_tokens_finder import largest_fitting


def test_every_answer_below_every_limit_is_found_without_going_far_beyond_it() -> None:
    for limit in range(1, 70):
        for answer in range(limit + 1):
            tried: list[int] = []

            found = largest_fitting(
                lambda count, answer=answer, tried=tried: tried.append(count) or count <= answer, limit
            )  # type: ignore[misc,func-returns-value]

            assert found == answer
            assert max(tried) <= min(limit, max(1, 2 * answer))
            assert len(tried) == len(set(tried)) <= 14
