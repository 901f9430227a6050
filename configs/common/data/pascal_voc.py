"""Pascal VOC 2007 and 2012, as Detectron2 has them (so with Detectron2 alone): boxes of 20 classes.

Trained on the trainval sets of both years, tested on VOC 2007 by its own metric.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.detectron2_only import PascalVOCDetectionEvaluator

from .coco_instance import dataloader

NUM_CLASSES = 20

dataloader.train.dataset.names = ["voc_2007_trainval", "voc_2012_trainval"]
dataloader.train.mapper.update(use_instance_mask=False, recompute_boxes=False)
dataloader.test.dataset.names = "voc_2007_test"
dataloader.evaluator = L(PascalVOCDetectionEvaluator)(dataset_name="${..test.dataset.names}")
