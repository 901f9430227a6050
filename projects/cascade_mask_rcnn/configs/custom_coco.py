"""Cascade Mask R-CNN, Iwin-T, on your own data in COCO format.

The paths are the only overrides needed; class names and every num_classes follow from the json:

    tools/lazyconfig_train_net.py --config-file projects/cascade_mask_rcnn/configs/custom_coco.py
        dataset.train_json=JSON dataset.train_images=FOLDER
        dataset.test_json=JSON dataset.test_images=FOLDER
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.data.coco import num_coco_classes

from ....configs.common.custom_coco import dataloader, dataset, lr_multiplier, optimizer, train
from ....configs.common.models.cascade_mask_rcnn_iwin import model

model.roi_heads.num_classes = L(num_coco_classes)(json_file="${dataset.train_json}")
train.output_dir = "./output/custom_coco"
