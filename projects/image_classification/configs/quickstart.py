"""A small Iwin from scratch on generated shapes (iwin_d2/data/classification_shapes.py), on a CPU.

tools/make_shapes_dataset.py datasets/classes --task image_classification --image-size 64 64
--num-train 2000 --num-val 400
tools/train_classifier.py --config-file projects/image_classification/configs/quickstart.py
"""

from .custom_folder_small import dataloader, dataset, lr_multiplier, model, optimizer, train

dataset.update({"train": "datasets/classes/train", "test": "datasets/classes/val"})
train.seed = 1
train.epochs.update({"max": 20, "eval": 5, "checkpoint": 5})
train.output_dir = "./output/quickstart_classification"
