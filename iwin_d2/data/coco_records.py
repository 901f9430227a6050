"""From a parsed COCO json to the records that Detectron2's mappers take."""

import os
from collections import defaultdict

import pycocotools.mask as mask_util

from ..d2.structures import BoxMode

__all__ = ["coco_records"]

_COPIED = ("iscrowd", "bbox")


def coco_records(data: dict, image_root: str) -> tuple[list[dict], list[str], dict[int, int]]:
    """Make the records of a json in which `find_problems` has found no error.

    They are those of Detectron2's `load_coco_json`, made from a json that has been parsed for the
    checks already. Keypoints are left out.

    Args:
        data: the parsed json; it is taken apart, so that its objects can be freed on the way.
        image_root: the folder that its `file_name`s are relative to.

    Returns:
        a record for each image, ordered by id, with file_name, height, width, image_id and
        annotations; an annotation has iscrowd (where the json has it), bbox, bbox_mode,
        category_id (0 to classes - 1) and, where there is a mask, segmentation: polygons or
        compressed RLE. Then the class names in the order of their ids, and which category id
        became which class number.
    """
    categories = sorted(data["categories"], key=lambda category: category["id"])
    numbers = {category["id"]: number for number, category in enumerate(categories)}
    by_image = _by_image(data.pop("annotations", []), numbers)
    records = [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": by_image.pop(image["id"], []),
        }
        for image in sorted(data.pop("images"), key=lambda image: image["id"])
    ]
    return records, [category["name"] for category in categories], numbers


def _by_image(annotations: list[dict], numbers: dict[int, int]) -> dict[int, list[dict]]:
    """Group the records' annotations by image id; empties the list."""
    by_image = defaultdict(list)
    annotations.reverse()
    while annotations:
        annotation = annotations.pop()
        by_image[annotation["image_id"]].append(_annotation(annotation, numbers))
    return by_image


def _annotation(annotation: dict, numbers: dict[int, int]) -> dict:
    kept = {key: annotation[key] for key in _COPIED if key in annotation}
    kept["category_id"] = numbers[annotation["category_id"]]
    segmentation = annotation.get("segmentation")
    if segmentation:
        if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        kept["segmentation"] = segmentation
    kept["bbox_mode"] = BoxMode.XYWH_ABS
    return kept
