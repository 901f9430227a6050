"""Label images with the published training augmentation (16 crops of 512x512 a batch).

Both names of data sets are left to whoever imports this.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.semantic_segmentation import (
    PadTo,
    PhotometricDistortion,
    RandomCropByLabels,
    ResizeByRatio,
    SemSegMapper,
    load_registered_segmentation,
)
from iwin_d2.data.semantic_segmentation.evaluator import SegmentationEvaluator

dataloader = {
    "train": L(build_train_loader)(
        dataset=L(load_registered_segmentation)(names="???", max_bad_images="${..max_bad_images}"),
        mapper=L(SemSegMapper)(
            is_train=True,
            augmentations=[
                L(ResizeByRatio)(size=(2048, 512), ratio_range=(0.5, 2.0)),
                L(RandomCropByLabels)(
                    crop_size=(512, 512), max_share=0.75, ignore_value="${...ignore_value}"
                ),
                L(T.RandomFlip)(horizontal=True),
                L(PhotometricDistortion)(),
                L(PadTo)(size="${..1.crop_size}", label_value="${...ignore_value}"),
            ],
            image_format="RGB",
            ignore_value=255,
        ),
        total_batch_size=16,
        aspect_ratio_grouping=False,  # all crops have one size
        num_workers=4,
        max_bad_images=0,  # how many images that cannot be read may be left out
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(load_registered_segmentation)(names="???"),
        mapper=L(SemSegMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=512, max_size=2048)],
            image_format="${...train.mapper.image_format}",
            ignore_value="${...train.mapper.ignore_value}",
        ),
        num_workers=4,
    ),
    # What train.val_loss_period measures: the test set with its labels.
    "val_loss": L(build_detection_test_loader)(
        dataset=L(load_registered_segmentation)(names="${...test.dataset.names}"),
        mapper=L(SemSegMapper)(
            is_train=True,
            augmentations="${...test.mapper.augmentations}",
            image_format="${...train.mapper.image_format}",
            ignore_value="${...train.mapper.ignore_value}",
        ),
        num_workers="${..test.num_workers}",
    ),
    "evaluator": L(SegmentationEvaluator)(dataset_name="${..test.dataset.names}"),
}


def use_sizes(dataloader, *, scale, crop, short_side, long_side):
    """Set the sizes of images, in pixels.

    Args:
        dataloader: the above.
        scale: (long side, short side) that training images are fitted into at the ratio 1.
        crop: (height, width) in training.
        short_side: of test images ...
        long_side: ... unless the long side would be longer than this.
    """
    resize, cut = dataloader.train.mapper.augmentations[:2]
    resize.size, cut.crop_size = scale, crop
    dataloader.test.mapper.augmentations[0].update(short_edge_length=short_side, max_size=long_side)
