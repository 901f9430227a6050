"""The door to detectron2.evaluation."""

from .framework import USE_DETECTRON2

if USE_DETECTRON2:
    from detectron2.evaluation import (
        COCOEvaluator,
        DatasetEvaluator,
        DatasetEvaluators,
        inference_context,
        inference_on_dataset,
        print_csv_format,
    )
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json
    from detectron2.evaluation.testing import flatten_results_dict
else:
    from ..native.evaluation import (
        COCOEvaluator,
        DatasetEvaluator,
        DatasetEvaluators,
        flatten_results_dict,
        inference_context,
        inference_on_dataset,
        instances_to_coco_json,
        print_csv_format,
    )

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "flatten_results_dict",
    "inference_context",
    "inference_on_dataset",
    "instances_to_coco_json",
    "print_csv_format",
]
