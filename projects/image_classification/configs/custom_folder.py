"""Iwin-T on your own images, a folder for each class.

The folders are the only overrides needed; class names and their number follow from them:

    tools/train_classifier.py --config-file projects/image_classification/configs/custom_folder.py
        dataset.train=FOLDER dataset.test=FOLDER

To start from published weights, add train.init_checkpoint=iwin_tiny_patch4_window7_224 (or a file)
and train.init_options.classes=new.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.classification.image_folder import num_image_folder_classes
from iwin_d2.modeling import iwin_classifier

from ....configs.common.image_classification import (
    dataloader,
    dataset,
    lr_multiplier,
    optimizer,
    train,
)

dataset.update({"train": "???", "test": "???"})
model = L(iwin_classifier)(
    name="iwin_tiny_patch4_window7_224",
    num_classes=L(num_image_folder_classes)(root="${dataset.train}"),
    drop_path_rate=0.2,
)
dataloader["train"].total_batch_size = 64
train.epochs["max"] = 50
lr_multiplier.warmup_length = 5 / 50
train.output_dir = "./output/custom_folder"
