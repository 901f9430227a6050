"""LVIS v1 as Detectron2 has it (so with Detectron2 alone), augmented as COCO in the recipe.

Images of rare classes are repeated: those of a class that less than one image in a thousand has.
"""

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_train_loader
from iwin_d2.d2.detectron2_only import LVISEvaluator, RepeatFactorTrainingSampler

from .coco_instance import dataloader

NUM_CLASSES = 1203

dataloader.train.dataset.names = "lvis_v1_train"
dataloader.test.dataset.names = "lvis_v1_val"

# Detectron2's own loader, which takes a sampler.
dataloader.train._target_ = build_detection_train_loader
del dataloader.train["max_bad_images"]
dataloader.train.sampler = L(RepeatFactorTrainingSampler)(
    repeat_factors=L(RepeatFactorTrainingSampler.repeat_factors_from_category_frequency)(
        dataset_dicts="${dataloader.train.dataset}", repeat_thresh=0.001
    )
)
dataloader.evaluator = L(LVISEvaluator)(
    dataset_name="${..test.dataset.names}", max_dets_per_image=300
)
