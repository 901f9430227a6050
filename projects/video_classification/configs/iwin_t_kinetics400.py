"""Iwin-T on Kinetics-400, 32x224x224: top-1 79.1 %, top-5 93.8 % as published.

    tools/train_classifier.py
        --config-file projects/video_classification/configs/iwin_t_kinetics400.py
        dataset.train_list=FILE dataset.train_root=FOLDER
        dataset.test_list=FILE dataset.test_root=FOLDER

It starts from the classifier of ImageNet-1K, inflated; train.init_checkpoint=FILE takes another.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.modeling import IwinTransformer3D, VideoClassifier

from ....configs.common.video_classification import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)

model = L(VideoClassifier)(
    backbone=L(IwinTransformer3D)(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        num_frames=32,
        drop_path_rate=0.1,
        use_checkpoint=False,
    ),
    num_classes=400,
    dropout=0.5,
    clips_at_once=4,  # of the 12 views of a video in the test
)
dataset["num_classes"] = 400
train["init_checkpoint"] = "iwin_tiny_patch4_window7_224"
train["output_dir"] = "./output/iwin_t_kinetics400"
