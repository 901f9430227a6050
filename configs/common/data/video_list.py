"""Videos of a list: clips of 32 frames, every second one, at 224 pixels, as published for Kinetics.

The paths are the only overrides needed: dataset.train_list and dataset.test_list, with lines
`path label` or in csv; dataset.train_root and dataset.test_root where the paths in them do not
start from the list's own folder; dataset.classes, a text file with the name of a class in each
line.
"""

from torchvision.transforms import v2

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.classification.evaluator import ClassificationEvaluator
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.video.mapper import VideoMapper
from iwin_d2.data.video.records import load_video_list, video_classes
from iwin_d2.data.video.sampling import RandomClip, SpacedClips
from iwin_d2.data.video.transforms import ShortSideResize, ThreeCrops

dataset = {
    "train_list": "???",
    "train_root": None,
    "test_list": "???",
    "test_root": None,
    "classes": None,
    "num_classes": None,  # if it is not to follow from classes, or from the labels in train_list
}

# The classes are those of the training list, for the test, too.
_CLASSES = L(video_classes)(
    list_file="${dataset.train_list}",
    classes="${dataset.classes}",
    num_classes="${dataset.num_classes}",
)


def _videos(part):
    return L(load_video_list)(
        list_file=f"${{dataset.{part}_list}}",
        root=f"${{dataset.{part}_root}}",
        classes=_CLASSES,
    )


dataloader = {
    # ImageNet statistics in RGB order, 0 to 255.
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
    "train": L(build_train_loader)(
        dataset=_videos("train"),
        mapper=L(VideoMapper)(
            is_train=True,
            sampler=L(RandomClip)(num_frames=32, stride=2),
            resize=L(ShortSideResize)(size=256),
            transforms=[
                L(v2.RandomResizedCrop)(
                    size=[224, 224], scale=[0.08, 1.0], ratio=[3 / 4, 4 / 3], antialias=True
                ),
                L(v2.RandomHorizontalFlip)(),
            ],
        ),
        total_batch_size=64,
        aspect_ratio_grouping=False,
        num_workers=8,
        max_bad_images=0,  # how many videos that cannot be read may be left out
        pin_memory=True,
    ),
    "test": L(build_detection_test_loader)(
        dataset=_videos("test"),
        mapper=L(VideoMapper)(
            is_train=False,
            sampler=L(SpacedClips)(num_frames=32, stride=2, num_clips=4),
            transforms=[L(ThreeCrops)(size=224)],
        ),
        num_workers=8,
    ),
    "evaluator": L(ClassificationEvaluator)(class_names=_CLASSES),
}
