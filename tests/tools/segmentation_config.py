"""A tiny UPerNet on the data of `write_scenes`, with all that a segmenter's config has."""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.d2.data import transforms as T
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.semantic_segmentation import (
    PadTo,
    RandomCropByLabels,
    ResizeByRatio,
    SemSegMapper,
    load_registered_segmentation,
    num_classes,
    register_folder,
)
from iwin_d2.data.semantic_segmentation.evaluator import SegmentationEvaluator

from ...configs.common.models.upernet_iwin import model
from ...configs.common.optim import AdamW as optimizer
from ...configs.common.schedules import cosine_schedule
from ...configs.common.train import train

dataset = {
    **{f"{part}_{kind}": "???" for part in ("train", "test") for kind in ("images", "labels")},
    "classes": "???",
}

model.backbone.update(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4)
model.backbone.drop_path_rate = 0.1
model.sem_seg_head.update(channels=8, pool_scales=[1, 2])
model.sem_seg_head.num_classes = L(num_classes)(classes="${dataset.classes}")
model.sem_seg_head.auxiliary.channels = 8


def _names(part):
    return L(register_folder)(
        name=f"scenes_{part}",
        images=f"${{dataset.{part}_images}}",
        labels=f"${{dataset.{part}_labels}}",
        classes="${dataset.classes}",
    )


def _test_loader(is_train):
    return L(build_detection_test_loader)(
        dataset=L(load_registered_segmentation)(names=_names("test")),
        mapper=L(SemSegMapper)(
            is_train=is_train,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=64, max_size=128)],
        ),
    )


dataloader = {
    "train": L(build_train_loader)(
        dataset=L(load_registered_segmentation)(names=_names("train")),
        mapper=L(SemSegMapper)(
            is_train=True,
            augmentations=[
                L(ResizeByRatio)(size=(64, 80), ratio_range=(0.8, 1.2)),
                L(RandomCropByLabels)(crop_size=(48, 48), max_share=0.75),
                L(T.RandomFlip)(horizontal=True),
                L(PadTo)(size=(48, 48), label_value=255),
            ],
        ),
        total_batch_size=2,
        aspect_ratio_grouping=False,
    ),
    "test": _test_loader(is_train=False),
    "val_loss": _test_loader(is_train=True),
    "evaluator": L(SegmentationEvaluator)(dataset_name="${..test.dataset.names}"),
}

optimizer.update(lr=0.01, weight_decay=0.01)
optimizer.params.within = "backbone."
lr_multiplier = cosine_schedule()
train.update(max_iter=6, eval_period=0, log_period=1, seed=3, device="cpu")
train.checkpointer.update(period=2, max_to_keep=9)
train.tensorboard.enabled = False
