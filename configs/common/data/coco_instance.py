"""COCO instance segmentation with the published training augmentation (16 images a batch)."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.augmentations import RandomChoice
from iwin_d2.data.coco_evaluator import CompletingCOCOEvaluator
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.data.registered import load_registered

_SHORT_EDGES = list(range(480, 801, 32))


def _resize(short_edges):
    return L(T.ResizeShortestEdge)(
        short_edge_length=short_edges, max_size=1333, sample_style="choice"
    )


dataloader = {
    "train": L(build_train_loader)(
        # filter_empty=False keeps images without objects: negative examples.
        dataset=L(load_registered)(names="coco_2017_train", filter_empty=True),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[
                L(T.RandomFlip)(horizontal=True),
                L(RandomChoice)(
                    augmentations=[
                        [_resize(_SHORT_EDGES)],
                        [
                            _resize([400, 500, 600]),
                            L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
                            _resize(_SHORT_EDGES),
                        ],
                    ]
                ),
            ],
            image_format="RGB",
            use_instance_mask=True,
            recompute_boxes=True,  # a crop cuts masks, and their boxes with them
        ),
        total_batch_size=16,
        num_workers=4,
        max_bad_images=0,  # how many images that cannot be read may be left out
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(load_registered)(names="coco_2017_val", filter_empty=False),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=4,
    ),
    # What train.val_loss_period measures: the test set with its annotations.
    "val_loss": L(build_detection_test_loader)(
        dataset=L(load_registered)(names="${...test.dataset.names}", filter_empty=True),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations="${...test.mapper.augmentations}",
            image_format="${...train.mapper.image_format}",
            use_instance_mask="${...train.mapper.use_instance_mask}",
        ),
        num_workers="${..test.num_workers}",
    ),
    "evaluator": L(CompletingCOCOEvaluator)(dataset_name="${..test.dataset.names}"),
}
