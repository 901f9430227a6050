"""COCO-format data sets, and COCO's own, registered under the names that Detectron2 gives them.

The latter's files lie under the folder that the environment variable DETECTRON2_DATASETS names, or
under `datasets`. Nothing is read before a data set is used.
"""

import contextlib
import io
import logging
import os

import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from ...errors import DataError
from ..structures import BoxMode
from .catalog import DatasetCatalog, MetadataCatalog

_COCO = {  # name: (json, folder of images)
    "coco_2017_train": ("instances_train2017.json", "train2017"),
    "coco_2017_val": ("instances_val2017.json", "val2017"),
    "coco_2017_val_100": ("instances_val2017_100.json", "val2017"),
    "coco_2017_test-dev": ("image_info_test-dev2017.json", "test2017"),
}


def register_coco_instances(name: str, metadata: dict, json_file: str, image_root: str) -> None:
    """Register a COCO-format data set, with more attributes for its metadata."""
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )


def load_coco_json(json_file: str, image_root: str, dataset_name: str | None = None) -> list[dict]:
    """Read a COCO instance json into Detectron2's records.

    Each record has file_name, height, width, image_id and annotations; an annotation has iscrowd,
    bbox (XYWH, pixels), bbox_mode, category_id, and segmentation where the json has one: polygons,
    or RLE in COCO's compressed form. Polygons of fewer than three points are dropped, and with its
    last polygon the annotation. With a `dataset_name`, class names go into its metadata, and the
    category ids become 0 to classes - 1, in their order.

    Raises DataError where an annotation has no box or an unknown category.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        coco = COCO(os.fspath(json_file))
    id_map = None if dataset_name is None else _set_classes(coco, dataset_name)
    records = []
    for image_id in sorted(coco.imgs):
        image = coco.imgs[image_id]
        annotations = [_annotation(a, id_map, json_file) for a in coco.imgToAnns[image_id]]
        records.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image_id,
                "annotations": [a for a in annotations if a is not None],
            }
        )
    dropped = len(coco.anns) - sum(len(record["annotations"]) for record in records)
    logger = logging.getLogger(__name__)
    logger.info("Loaded %d images in COCO format from %s", len(records), json_file)
    if dropped:
        logger.warning("Left out %d annotations without a polygon of three points", dropped)
    return records


def _set_classes(coco: COCO, dataset_name: str) -> dict[int, int]:
    """Put the class names into the metadata; return category id -> class number."""
    category_ids = sorted(coco.getCatIds())
    id_map = {category_id: number for number, category_id in enumerate(category_ids)}
    MetadataCatalog.get(dataset_name).set(
        thing_classes=[category["name"] for category in coco.loadCats(category_ids)],
        thing_dataset_id_to_contiguous_id=id_map,
    )
    return id_map


def _annotation(annotation: dict, id_map: dict[int, int] | None, json_file: str) -> dict | None:
    """Return one annotation of a record; None if its segmentation has no valid polygon."""
    where = f"{json_file}: annotation {annotation.get('id')} of image {annotation['image_id']}"
    kept = {key: annotation[key] for key in ("iscrowd", "bbox", "category_id") if key in annotation}
    kept["bbox_mode"] = BoxMode.XYWH_ABS
    if len(kept.get("bbox", ())) != 4:
        raise DataError(f"{where} has no bbox of four numbers: correct or remove it.")
    if id_map is not None:
        if kept["category_id"] not in id_map:
            raise DataError(
                f"{where} has the category id {kept['category_id']}, which is not among the "
                f"json's categories {sorted(id_map)}: correct or remove it."
            )
        kept["category_id"] = id_map[kept["category_id"]]
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
    elif segmentation:
        segmentation = [p for p in segmentation if len(p) >= 6 and len(p) % 2 == 0]
        if not segmentation:
            return None
    if segmentation:
        kept["segmentation"] = segmentation
    return kept


for _name, (_json, _images) in _COCO.items():
    _root = os.path.join(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")), "coco")
    register_coco_instances(
        _name, {}, os.path.join(_root, "annotations", _json), os.path.join(_root, _images)
    )
