"""Processes that gather weights together run equally many passes in each step."""

from support.uneven_rows import uneven_examples
from tunelab.data.examples import Batch
from tunelab.data.loader import BatchLoader
from tunelab.tasks.instruction import Instruction


def epoch(rank: int, world_size: int, *, equal_passes: bool) -> list[Batch]:
    """All steps of an epoch, as one rank gets them."""
    task = Instruction()
    loader = BatchLoader(
        uneven_examples()[:19], collate=task.collate, filler=task.padding_example(), batch_size=5, micro_tokens=1,
        rank=rank, world_size=world_size, equal_passes=equal_passes,
    )  # fmt: skip
    return list(loader)


def test_a_rank_with_fewer_micro_batches_gets_fillers_that_teach_nothing() -> None:
    for world_size in (2, 3):
        plain, equal = (
            [epoch(rank, world_size, equal_passes=on) for rank in range(world_size)] for on in (False, True)
        )
        assert any(len({len(batch.micro_batches) for batch in step}) > 1 for step in zip(*plain, strict=True))
        for before, after in zip(zip(*plain, strict=True), zip(*equal, strict=True), strict=True):
            assert len({len(batch.micro_batches) for batch in after}) == 1
            for one, other in zip(before, after, strict=True):
                added = other.micro_batches[len(one.micro_batches) :]
                assert all((micro.row_indices < 0).all() and (micro.targets < 0).all() for micro in added)
                assert one.loss_weight == other.loss_weight


def test_a_rank_alone_gets_none() -> None:
    one, other = (epoch(0, 1, equal_passes=on) for on in (False, True))

    assert [len(batch.micro_batches) for batch in one] == [len(batch.micro_batches) for batch in other]
