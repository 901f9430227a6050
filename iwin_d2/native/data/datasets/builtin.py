"""COCO's own data sets, registered under the names that Detectron2 gives them.

Their files lie under the folder that the environment variable DETECTRON2_DATASETS names, at first
`datasets`. Nothing is read before a data set is used.
"""

import os

from .coco import register_coco_instances

__all__ = ["register_all_coco"]

# name: (folder of images, json)
_COCO = {
    "coco_2014_train": ("coco/train2014", "coco/annotations/instances_train2014.json"),
    "coco_2014_val": ("coco/val2014", "coco/annotations/instances_val2014.json"),
    "coco_2017_train": ("coco/train2017", "coco/annotations/instances_train2017.json"),
    "coco_2017_val": ("coco/val2017", "coco/annotations/instances_val2017.json"),
    "coco_2017_val_100": ("coco/val2017", "coco/annotations/instances_val2017_100.json"),
    "coco_2017_test": ("coco/test2017", "coco/annotations/image_info_test2017.json"),
    "coco_2017_test-dev": ("coco/test2017", "coco/annotations/image_info_test-dev2017.json"),
}


def register_all_coco(root: str) -> None:
    """Register COCO's data sets below a folder."""
    for name, (image_folder, json_file) in _COCO.items():
        register_coco_instances(
            name, {}, os.path.join(root, json_file), os.path.join(root, image_folder)
        )


register_all_coco(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
