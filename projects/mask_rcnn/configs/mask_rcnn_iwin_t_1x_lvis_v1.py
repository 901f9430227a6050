"""Mask R-CNN, Iwin-T, on LVIS v1 (this project's own, none published; needs Detectron2)."""

from ....configs.common.data.lvis_v1_instance import NUM_CLASSES, dataloader
from .mask_rcnn_iwin_t_1x_coco import lr_multiplier, model, optimizer, train

model.roi_heads.num_classes = NUM_CLASSES
# As Detectron2's LVIS configs: many classes, so many detections with low scores.
model.roi_heads.box_predictor.update(test_score_thresh=0.0001, test_topk_per_image=300)
train.output_dir = "./output/mask_rcnn_iwin_t_1x_lvis_v1"
