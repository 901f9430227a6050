"""A classifier's config that trains in a second: which quarter of a small image is bright."""

from pathlib import Path

import torch
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.classification.evaluator import ClassificationEvaluator
from iwin_d2.data.loader import build_train_loader
from iwin_d2.engine.classifier_param_groups import get_classifier_param_groups
from iwin_d2.modeling import IwinClassifier

NAMES = ("upper left", "upper right", "lower left", "lower right")


def records(count):
    return [{"file_name": f"{i:03}.png", "label": i % 4, "image_id": i} for i in range(count)]


class Mapper:
    """Makes the image of a record; in training with noise of its own."""

    def __init__(self, is_train, bad=(), size=16):
        self.is_train, self.bad, self.size = is_train, bad, size

    def __call__(self, record):
        noise = torch.Generator().manual_seed(record["image_id"])
        image = torch.randint(0, 100, (3, self.size, self.size), generator=noise)
        if self.is_train:
            image += torch.randint(0, 30, image.shape)
        row, column = divmod(record["label"], 2)
        half = self.size // 2
        image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 80
        if record["image_id"] in self.bad:
            image = image * float("nan")
            return {**record, "image": image}
        return {**record, "image": image.to(torch.uint8)}


def make_config(output: Path, max_iter=12, **train):
    return OmegaConf.create(
        {
            "model": L(IwinClassifier)(
                num_classes=4,
                img_size=16,
                window_size=2,
                embed_dim=8,
                depths=[1, 1, 1, 1],
                num_heads=[1, 1, 2, 2],
                drop_path_rate=0.1,
            ),
            "dataloader": {
                "pixel_mean": [110.0, 110.0, 110.0],
                "pixel_std": [50.0, 50.0, 50.0],
                "train": L(build_train_loader)(
                    dataset=records(24),
                    mapper=L(Mapper)(is_train=True),
                    total_batch_size=4,
                    aspect_ratio_grouping=False,
                    num_workers=0,
                ),
                "test": L(build_detection_test_loader)(
                    dataset=records(11), mapper=L(Mapper)(is_train=False), num_workers=0
                ),
                "evaluator": L(ClassificationEvaluator)(class_names=NAMES),
            },
            "optimizer": L(torch.optim.AdamW)(
                params=L(get_classifier_param_groups)(lr="${..lr}", weight_decay=0.05), lr=0.003
            ),
            "lr_multiplier": L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
            "train": {
                "output_dir": str(output),
                "init_checkpoint": "",
                "max_iter": max_iter,
                "checkpointer": {"period": 4, "max_to_keep": 10},
                "eval_period": 0,
                "log_period": 1,
                "device": "cpu",
                "seed": 1,
                "tensorboard": {"enabled": False},
                **train,
            },
        },
        flags={"allow_objects": True},
    )
