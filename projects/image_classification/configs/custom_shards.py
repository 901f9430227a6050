"""As custom_folder.py, for images in WebDataset's shards: tar files that are not compressed.

    tools/train_classifier.py --config-file projects/image_classification/configs/custom_shards.py
        'dataset.train="train-{000..127}.tar"' 'dataset.test="val-{000..006}.tar"'
        dataset.classes=FILE

FILE has the name of a class in each line, in the order of their numbers.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.classification.shards import load_shards
from iwin_d2.data.semantic_segmentation import class_names, num_classes

from .custom_folder import dataloader, dataset, lr_multiplier, model, optimizer, train

dataset["classes"] = "???"
model.num_classes = L(num_classes)(classes="${dataset.classes}")
for part in ("train", "test"):
    dataloader[part].dataset = L(load_shards)(
        shards=f"${{dataset.{part}}}", num_classes="${model.num_classes}"
    )
dataloader["evaluator"].class_names = L(class_names)(classes="${dataset.classes}")
train.output_dir = "./output/custom_shards"
