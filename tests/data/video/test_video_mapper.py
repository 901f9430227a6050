"""From records to clips, in workers, resumed, with bad videos left out."""

import logging
from functools import partial
from itertools import islice

import pytest
import torch
from torchvision.transforms import v2
from video_files import needs_h264, shown_number, write_video

from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.video.mapper import VideoMapper
from iwin_d2.data.video.sampling import RandomClip, SpacedClips
from iwin_d2.data.video.transforms import ShortSideResize, ThreeCrops
from iwin_d2.errors import AugmentationError, DataError

pytestmark = needs_h264

SHORT = RandomClip(num_frames=4)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        {"file_name": str(write_video(folder / f"{i}.mp4", 20 + i)), "label": i % 3, "image_id": i}
        for i in range(6)
    ]


def training_mapper(**options):
    crop = v2.RandomResizedCrop(32, scale=(0.5, 1))
    return VideoMapper(
        True, SHORT, ShortSideResize(40), [crop, v2.RandomHorizontalFlip()], **options
    )


def load(records, count=8, **options):
    options = {"mapper": training_mapper(), "total_batch_size": 2, "seed": 1, **options}
    return build_train_loader(records, aspect_ratio_grouping=False, **options), count


def take(loader, count):
    return [item for batch in islice(loader, count) for item in batch]


def same(items, others):
    return [i["image_id"] for i in items] == [i["image_id"] for i in others] and all(
        torch.equal(i["video"], other["video"]) for i, other in zip(items, others)
    )


def test_a_clip_to_train_on(records):
    torch.manual_seed(0)
    item = training_mapper()(records[0])
    assert item["video"].shape == (1, 3, 4, 32, 32) and item["video"].dtype == torch.uint8
    assert item["video"].is_contiguous()
    assert (item["label"], item["image_id"], item["clips"], item["num_frames"]) == (0, 0, 1, 20)


def test_frames_are_those_sampled(records):
    mapper = VideoMapper(False, SpacedClips(num_clips=2, num_frames=3, stride=2))
    video = mapper(records[0])["video"]
    assert video.shape == (2, 3, 3, 48, 64)
    numbers = [[shown_number(frame) for frame in clip.transpose(0, 1)] for clip in video]
    assert numbers == SpacedClips(2, 3, 2)(20).tolist()


def test_views_of_tests_are_clips_times_crops(records):
    mapper = VideoMapper(False, SpacedClips(4, 5), ShortSideResize(24), [ThreeCrops(24)])
    item = mapper(records[1])
    assert item["video"].shape == (12, 3, 5, 24, 24) and item["clips"] == 4
    # Clip after clip: the views of the second one are 3 to 5.
    alone = VideoMapper(False, lambda n: SpacedClips(4, 5)(n)[1:2], None, [ThreeCrops(24)])
    assert torch.equal(alone(records[1])["video"], item["video"][3:6])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(records, workers):
    assert same(take(*load(records)), take(*load(records, num_workers=workers)))


def test_resumed_in_mid_epoch(records):
    whole = take(*load(records, 10))
    resumed, _ = load(records, num_workers=1, seed=77)
    resumed.resume(load(records)[0].state_dict(), batches=4)
    assert same(take(resumed, 6), whole[8:])


def test_bad_videos_are_left_out_counted_and_named(records, tmp_path, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    bad = {"file_name": str(broken), "label": 0, "image_id": 6}
    with caplog.at_level(logging.WARNING):
        items = take(*load([*records, bad], 14, max_bad_images=1))
    assert {item["image_id"] for item in items} == set(range(6))
    assert "Left out bad video 1 of at most 1 (dataloader.train.max_bad_images): " in caplog.text
    assert f"{broken} cannot be read as a video (the file is empty)" in caplog.text
    with pytest.raises(DataError, match=r"cannot be read as a video \(the file is empty\)"):
        take(*load([*records, bad], 14))
    with pytest.raises(DataError, match="max_bad_images=1 videos are bad; the next one: There is"):
        gone = {"file_name": str(tmp_path / "gone.mp4"), "label": 0, "image_id": 7}
        take(*load([*records, bad, gone], 14, max_bad_images=1))


def test_bad_videos_in_workers(records, tmp_path):
    bad = {"file_name": str(tmp_path / "gone.mp4"), "label": 0, "image_id": 6}
    with pytest.raises(DataError) as raised:
        take(*load([*records, bad], 14, num_workers=1))
    assert raised.value.sentence.startswith(f"There is no video {tmp_path}/gone.mp4")
    items = take(*load([*records, bad], 14, num_workers=1, max_bad_images=1))
    assert {item["image_id"] for item in items} == set(range(6))


def test_a_fault_of_the_config_is_not_a_bad_video(records):
    mapper = VideoMapper(True, SHORT, transforms=[v2.Normalize([0.5], [0.5])])
    with pytest.raises(AugmentationError, match=r"0\.mp4 cannot be prepared .*dataloader\.train"):
        mapper(records[0])
    mapper = VideoMapper(False, lambda length: SHORT(length) + 1000)
    with pytest.raises(AugmentationError, match=r"IndexError.*dataloader\.test\.mapper"):
        mapper(records[0])


def test_the_decoder_can_be_replaced(records):
    opened = []

    class Other:
        def __init__(self, path, num_threads):
            opened.append((path, num_threads))

        def __len__(self):
            return 9

        def read(self, indices, resize):
            return torch.zeros(len(indices), 3, 8, 8, dtype=torch.uint8)

        def close(self):
            opened.append("closed")

    item = VideoMapper(True, SHORT, open_video=partial(Other), num_threads=2)(records[0])
    assert item["video"].shape == (1, 3, 4, 8, 8) and item["num_frames"] == 9
    assert opened == [(records[0]["file_name"], 2), "closed"]


def test_files_are_closed_whatever_happens(records):
    closed = []

    class Failing:
        def __init__(self, path, num_threads):
            pass

        def __len__(self):
            return 9

        def read(self, indices, resize):
            raise DataError("broken")

        def close(self):
            closed.append(True)

    with pytest.raises(DataError, match="broken"):
        VideoMapper(True, SHORT, open_video=Failing)(records[0])
    assert closed == [True]
