"""What of Detectron2 has no native equivalent: importing this raises a ConfigError without it."""

from ..errors import ConfigError
from .framework import REASON, USE_DETECTRON2

if not USE_DETECTRON2:
    raise ConfigError(
        "LVIS and Pascal VOC are read and evaluated by Detectron2 alone, but native runs "
        f"({REASON}): run this on Detectron2 (docs/detectron2.md), or bring the data into COCO's "
        "format and take custom_coco.py."
    )

from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.evaluation import LVISEvaluator, PascalVOCDetectionEvaluator

__all__ = ["LVISEvaluator", "PascalVOCDetectionEvaluator", "RepeatFactorTrainingSampler"]
