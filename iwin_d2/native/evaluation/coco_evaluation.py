"""COCO's average precision of boxes and masks; pycocotools computes all of it."""

import contextlib
import copy
import io
import itertools
import json
import logging
import os
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from ...errors import DataError
from ...files import atomic_write
from ..data import MetadataCatalog
from ..structures import BoxMode
from ..utils import comm
from ..utils.file_io import PathManager
from .evaluator import DatasetEvaluator

_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
logger = logging.getLogger(__name__)


class COCOEvaluator(DatasetEvaluator):
    """Evaluates boxes and instance masks of a data set registered from a COCO json.

    DataError if that json cannot be read. `tasks` are out of "bbox" and "segm", by default what the
    predictions have; `max_dets_per_image` is one limit (100), or COCOeval's three. The last two
    arguments are accepted for Detectron2's configs: pycocotools always computes.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | Sequence[int] | None = None,
        use_fast_impl: bool = True,
        allow_cached_coco: bool = True,
    ):
        self._distributed = distributed
        self._output_dir = output_dir
        self._tasks = tasks
        limits = 100 if max_dets_per_image is None else max_dets_per_image
        if isinstance(limits, int):  # COCOeval sorts its limits and takes the last
            limits = [min(1, limits), min(10, limits), limits]
        self._max_dets = list(limits)
        self._metadata = MetadataCatalog.get(dataset_name)
        json_file = getattr(self._metadata, "json_file", None)
        if not json_file:
            raise DataError(
                f"Data set {dataset_name!r} has no COCO json to evaluate against: register it "
                "with register_coco_instances."
            )
        self._coco_api = _load_ground_truth(json_file)
        self._predictions: list[tuple] = []  # (image id, its records)

    def reset(self):
        self._predictions = []

    def process(self, inputs, outputs):
        """Take one batch: the loader's dicts with "image_id", the model's with "instances"."""
        for record, output in zip(inputs, outputs):
            image_id, instances = record["image_id"], output["instances"].to("cpu")
            self._predictions.append((image_id, instances_to_coco_json(instances, image_id)))

    def evaluate(self, img_ids: list | None = None):
        """Evaluate what was processed, on all images of the data set or the given ids.

        Returns {"bbox": {"AP": .., "AP50": .., .., "AP-<class>": ..}, "segm": {..}} in percent, NaN
        where nothing was predicted or nothing can be measured; {} in other processes than the
        first and where no image was processed.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions)))
            if not comm.is_main_process():
                return {}
        if not predictions:
            logger.warning("No image was evaluated, so there are no results.")
            return {}
        results = [record for _, records in predictions for record in records]
        results = self._to_dataset_categories(results)
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            logger.info("Saving results to %s", path)
            with atomic_write(path, "w") as file:
                json.dump(results, file)
        if "annotations" not in self._coco_api.dataset:
            logger.info("The data set has no annotations: results are saved, not evaluated.")
            return {}
        masks = any("segmentation" in result for result in results)
        tasks = self._tasks or (("bbox", "segm") if masks else ("bbox",))
        return {task: self._evaluate_task(task, results, img_ids) for task in sorted(tasks)}

    def _to_dataset_categories(self, results: list[dict]) -> list[dict]:
        """Records with the data set's category ids in place of class numbers 0..n-1."""
        mapping = getattr(self._metadata, "thing_dataset_id_to_contiguous_id", None)
        if mapping is None:
            return results
        to_dataset_id = {contiguous: dataset_id for dataset_id, contiguous in mapping.items()}
        unknown = {result["category_id"] for result in results}.difference(to_dataset_id)
        if unknown:
            raise DataError(
                f"The model predicts class {max(unknown)}, but data set {self._metadata.name!r} "
                f"has {len(to_dataset_id)} classes: set num_classes to that."
            )
        return [{**r, "category_id": to_dataset_id[r["category_id"]]} for r in results]

    def _evaluate_task(self, task: str, results: list[dict], img_ids) -> dict[str, float]:
        if not results:
            logger.warning(
                "The model predicted nothing at all, so AP of %s cannot be computed (nan): train "
                "longer, or lower the score threshold.",
                task,
            )
            return dict.fromkeys(_METRICS, float("nan"))
        coco_eval, summary = _run_cocoeval(self._coco_api, results, task, self._max_dets, img_ids)
        logger.info("Evaluation results for %s:\n%s", task, summary)
        precision = coco_eval.eval["precision"]  # IoU x recall x class x area x limit
        # -1 is COCOeval's word for "no such object in the data set".
        stats = [value * 100 if value >= 0 else float("nan") for value in coco_eval.stats]
        metrics = {name: float(value) for name, value in zip(_METRICS, stats)}
        if coco_eval.stats[0] < 0:  # also where COCOeval has no limit of 100 to summarise
            metrics["AP"] = _mean_precision(precision[:, :, :, 0, -1])
        logger.info("%s:\n%s", task, _table([metrics], "keys"))
        names = self._metadata.get("thing_classes")
        if names is None or len(names) <= 1:
            return metrics
        assert len(names) == precision.shape[2], (len(names), precision.shape)
        per_class = {n: _mean_precision(precision[:, :, i, 0, -1]) for i, n in enumerate(names)}
        logger.info("Per-category %s AP:\n%s", task, _class_table(per_class))
        return {**metrics, **{f"AP-{name}": ap for name, ap in per_class.items()}}


def instances_to_coco_json(instances, img_id) -> list[dict]:
    """Turn one image's predictions, on the CPU, into records of a COCO results file.

    Takes `pred_boxes`, `scores`, `pred_classes` and, where there are any, `pred_masks` [N, H, W].
    """
    if len(instances) == 0:
        return []
    boxes = instances.pred_boxes.tensor.numpy()
    boxes = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    records = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(
            instances.pred_classes.tolist(), boxes, instances.scores.tolist()
        )
    ]
    if instances.has("pred_masks"):
        for record, mask in zip(records, instances.pred_masks):
            rle = mask_util.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
            # json has no bytes
            record["segmentation"] = {**rle, "counts": rle["counts"].decode("utf-8")}
    return records


def _load_ground_truth(json_file: str) -> COCO:
    """Read a COCO json without printing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(PathManager.get_local_path(json_file))
            ids = [annotation["id"] for annotation in coco.dataset.get("annotations", [])]
            if 0 in ids or len(set(ids)) < len(ids):
                # COCOeval takes 0 for "no match", and the last of equal ids for all of them.
                for number, annotation in enumerate(coco.dataset["annotations"], start=1):
                    annotation["id"] = number
                coco.createIndex()
    except OSError as error:
        raise DataError(f"Cannot read {json_file}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(f"{json_file} is not a COCO json: {error!r}.") from error
    return coco


def _run_cocoeval(coco: COCO, results: list[dict], task: str, max_dets: list[int], img_ids):
    """Return the finished COCOeval and the summary it printed."""
    results = copy.deepcopy(results)
    if task == "segm":
        # With a box in the record, pycocotools would take areas from boxes, not from masks.
        for result in results:
            result.pop("bbox", None)
    printed = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        # A results file does not need it; old json files lack it.
        coco.dataset.setdefault("info", {})
        coco_eval = COCOeval(coco, coco.loadRes(results), task)
        coco_eval.params.maxDets = max_dets
        if img_ids is not None:
            coco_eval.params.imgIds = img_ids
        coco_eval.evaluate()
        coco_eval.accumulate()
        with contextlib.redirect_stdout(printed):
            coco_eval.summarize()
    return coco_eval, printed.getvalue().rstrip()


def _mean_precision(precision: np.ndarray) -> float:
    """Average precision in percent; NaN where the data set holds no such object (all -1)."""
    precision = precision[precision > -1]
    return float(np.mean(precision) * 100) if precision.size else float("nan")


def _table(rows: list, headers) -> str:
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f", numalign="left")


def _class_table(values: dict[str, float]) -> str:
    """A table of three classes a row."""
    cells = [cell for pair in values.items() for cell in pair]
    rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
    return _table(rows, ["category", "AP"] * min(3, len(values)))
