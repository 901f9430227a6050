"""The training loader: one stream for any number of workers, processes and restarts."""

import logging
import random
import subprocess
import sys
import traceback
from itertools import islice

import numpy as np
import pytest
import torch

from iwin_d2.data import loader as loader_module
from iwin_d2.data.loader import BatchPlan, build_train_loader
from iwin_d2.errors import AugmentationError, ConfigError, DataError

# Orientations that fill no batch evenly: 7 lying, 4 upright.
RECORDS = [
    {"image_id": i, "width": 30 + i, "height": 20 if i % 3 else 90, "file_name": f"{i}.png"}
    for i in range(11)
]


def draw(record):
    """A mapper whose output shows all three sources of random numbers."""
    return {**record, "drawn": (random.random(), np.random.rand(), torch.rand(1).item())}


def build(mapper=draw, **changes):
    options = {"mapper": mapper, "total_batch_size": 2, "seed": 3, **changes}
    return build_train_loader([dict(r) for r in RECORDS], **options)


def take(loader, count=12):
    return list(islice(loader, count))


def images(batches):
    return [[item["image_id"] for item in batch] for batch in batches]


def flat(lists):
    return [item for items in lists for item in items]


@pytest.fixture
def processes(monkeypatch):
    """Pretend to be process `rank` of `size`."""

    def pretend(rank, size):
        monkeypatch.setattr(loader_module.comm, "get_rank", lambda: rank)
        monkeypatch.setattr(loader_module.comm, "get_world_size", lambda: size)

    return pretend


@pytest.mark.parametrize("groups", [None, np.arange(13) % 2])
def test_a_plan_begins_at_any_batch(groups):
    plan = BatchPlan(size=13, batch_size=5, seed=3, groups=groups)
    batches = list(islice(plan, 20))
    for first in range(16):
        assert list(islice(plan.batches(first), 4)) == batches[first : first + 4]


def test_every_image_once_before_any_comes_again():
    plan = BatchPlan(size=11, batch_size=1, seed=0)
    stream = [batch[0] for batch in islice(plan, 33)]
    assert [position for position, _ in stream] == list(range(33))
    rounds = [[i for _, i in stream[start : start + 11]] for start in (0, 11, 22)]
    assert all(sorted(numbers) == list(range(11)) for numbers in rounds)
    assert rounds[0] != rounds[1] != rounds[2]


def test_batches_are_of_one_orientation_and_leave_nothing_out():
    batches = take(build(), 60)
    for batch in batches:
        assert len({item["width"] > item["height"] for item in batch}) == 1
    counts = np.bincount(flat(images(batches)), minlength=11)
    assert counts.min() >= 9 and counts.max() <= 12  # 120 images: each about 11 times


def test_without_grouping_batches_follow_the_stream():
    batches = take(build(aspect_ratio_grouping=False), 11)
    assert sorted(flat(images(batches))) == sorted(2 * list(range(11)))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_what_comes(workers):
    assert take(build(num_workers=workers)) == take(build())


def test_processes_share_the_batches_of_one(processes):
    whole = take(build(total_batch_size=4), 6)
    shares = []
    for rank in range(2):
        processes(rank, 2)
        shares.append(take(build(total_batch_size=4), 6))
    assert [first + second for first, second in zip(*shares)] == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_where_it_was(workers):
    whole = take(build(), 30)
    resumed = build(seed=99, num_workers=workers)
    resumed.resume(build().state_dict(), batches=17)
    assert take(resumed, 13) == whole[17:]


def test_resumed_with_another_batch_begins_anew_then_resumes_exactly(caplog):
    first = build()
    changed = build(total_batch_size=3, seed=99)
    with caplog.at_level(logging.WARNING):
        changed.resume(first.state_dict(), batches=5)
    assert "11 images, 2 a batch, this run has 11, 3 a batch" in caplog.text
    whole = take(changed, 9)
    assert images(whole) != images(take(build(total_batch_size=3), 9))  # not that seed again
    again = build(total_batch_size=3)
    again.resume(changed.state_dict(), batches=5 + 4)
    assert take(again, 5) == whole[4:]


def test_the_seed_decides():
    assert take(build(seed=4)) != take(build())
    drawn = [item["drawn"] for item in flat(take(build(), 20))]
    assert len(set(drawn)) == len(drawn)  # also for an image that comes again


def test_loading_in_the_process_leaves_its_random_numbers_alone():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draw({})
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    take(build())
    assert draw({}) == expected


class Refusing:
    """A mapper that cannot use some images."""

    def __init__(self, bad, error=DataError):
        self.bad, self.error = bad, error

    def __call__(self, record):
        if record["image_id"] in self.bad:
            if self.error is None:
                return None
            raise self.error(f"{record['file_name']} is damaged.")
        return record


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_ends_the_training_by_default(workers):
    with pytest.raises(DataError) as caught:
        take(build(Refusing({5}), num_workers=workers))
    traceback.clear_frames(caught.tb)  # the loader in them would wait seconds for its workers
    assert caught.value.sentence == "5.png is damaged."


@pytest.mark.parametrize("workers", [0, 2])
def test_as_many_bad_images_as_allowed_are_left_out(workers):
    batches = take(build(Refusing({5, 6}), max_bad_images=2, num_workers=workers), 40)
    assert [len(batch) for batch in batches] == [2] * 40
    assert {5, 6}.isdisjoint(flat(images(batches)))
    for batch in batches:  # stand-ins, too, have the orientation of the batch
        assert len({item["width"] > item["height"] for item in batch}) == 1


def test_bad_images_left_out_are_logged_once_each(caplog):
    with caplog.at_level(logging.WARNING):
        take(build(Refusing({5, 6}), max_bad_images=2), 40)
    messages = [r.message for r in caplog.records]
    assert len(messages) == 2 and "bad image 2 of at most 2" in messages[1]
    assert {"5.png is damaged." in m for m in messages} == {True, False}


@pytest.mark.parametrize("workers", [0, 2])
def test_one_bad_image_too_many(workers):
    with pytest.raises(DataError) as caught:
        take(build(Refusing({5, 6, 7}), max_bad_images=2, num_workers=workers), 40)
    traceback.clear_frames(caught.tb)
    assert caught.value.sentence.startswith("More than dataloader.train.max_bad_images=2 images")
    assert caught.value.sentence.endswith(".png is damaged.")


def test_an_image_that_another_worker_finds_bad_at_the_same_time_counts_once():
    refuse = Refusing({5})

    def while_another_does(record):
        loader._records._bad[5] |= record["image_id"] == 5
        return refuse(record)

    loader = build(while_another_does, max_bad_images=1)
    assert 5 not in flat(images(take(loader, 20)))


def test_resuming_skips_the_same_images():
    whole = take(build(Refusing({2, 5}), max_bad_images=2), 20)
    resumed = build(Refusing({2, 5}), max_bad_images=2)
    resumed.resume(resumed.state_dict(), batches=9)
    assert take(resumed, 11) == whole[9:]


@pytest.mark.parametrize("error", [ZeroDivisionError, AugmentationError])
def test_other_errors_are_never_skipped(error):
    with pytest.raises(error):
        take(build(Refusing({5}, error), max_bad_images=9))


def test_records_that_the_mapper_drops_are_replaced():
    assert 5 not in flat(images(take(build(Refusing({5}, error=None)))))
    with pytest.raises(DataError, match="none of the training images"):
        take(build(Refusing(set(range(11)), error=None)))


def test_what_cannot_be_loaded(processes):
    with pytest.raises(DataError, match="training set is empty"):
        build_train_loader([], mapper=draw, total_batch_size=1)
    with pytest.raises(DataError, match="no 'width', which grouping by shape needs"):
        build_train_loader([{"height": 3}], mapper=draw, total_batch_size=1)
    processes(0, 3)
    with pytest.raises(ConfigError, match="total_batch_size=4 cannot be shared equally by 3"):
        build(total_batch_size=4)


LEFT_TO_ITSELF = """
import sys
from iwin_d2.data.loader import build_train_loader
records = [{"width": 2, "height": 1}] * 8
batches = iter(build_train_loader(records, mapper=dict, total_batch_size=2, num_workers=1))
next(batches)
sys.modules["kept"] = batches  # never closed, as by a trainer in a cycle of references
"""


def test_a_loader_that_nobody_closes_does_not_keep_the_program_from_ending():
    done = subprocess.run([sys.executable, "-c", LEFT_TO_ITSELF], timeout=60)
    assert done.returncode == 0
