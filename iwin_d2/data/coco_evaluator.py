"""Evaluation on COCO json files that lack what pycocotools asks for."""

import contextlib
import io
import logging
import math

import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from ..d2.evaluation import COCOEvaluator

__all__ = ["CompletingCOCOEvaluator", "complete_ground_truth"]

logger = logging.getLogger(__name__)


class CompletingCOCOEvaluator(COCOEvaluator):
    """The framework's COCOEvaluator, which also takes a json without info, area, iscrowd or masks.

    Training needs none of these, so nobody should meet their absence after a thousand iterations.
    The arguments are those of COCOEvaluator.
    """

    def evaluate(self, img_ids: list | None = None):
        """Evaluate as COCOEvaluator does, on the completed ground truth.

        Masks are only evaluated where every annotation of the json has one, unless `tasks` asks for
        them.
        """
        complete_ground_truth(self._coco_api)
        annotations = self._coco_api.dataset.get("annotations", [])
        bare = sum(not annotation.get("segmentation") for annotation in annotations)
        if bare and self._tasks is None:
            text = "%d of %d annotations have no mask: boxes alone are evaluated"
            logger.warning(text, bare, len(annotations))
            self._tasks = ("bbox",)
        return super().evaluate(img_ids)


def complete_ground_truth(coco: COCO) -> None:
    """Fill in what pycocotools' evaluation asks for, in place.

    An annotation without iscrowd is a single object, as in training. An area that is missing or no
    number becomes that of the mask, or of the box where there is none. Where an annotation has the
    id 0, which stands for "no match" in evaluation, all get new ids.
    """
    coco.dataset.setdefault("info", {})
    annotations = coco.dataset.get("annotations", [])
    for annotation in annotations:
        annotation.setdefault("iscrowd", 0)
        area = annotation.get("area")
        if type(area) not in (int, float) or not 0 <= area < math.inf:
            annotation["area"] = _area(coco, annotation)
    if any(annotation["id"] == 0 for annotation in annotations):
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            coco.createIndex()


def _area(coco: COCO, annotation: dict) -> float:
    if annotation.get("segmentation"):
        return float(mask_util.area(coco.annToRLE(annotation)))
    _, _, width, height = annotation["bbox"]
    return width * height
