"""Faster R-CNN, Iwin-T, on Pascal VOC 2007 and 2012 (this project's own; needs Detectron2)."""

from ....configs.common.data.pascal_voc import NUM_CLASSES, dataloader
from ....configs.common.schedules import step_schedule
from .faster_rcnn_iwin_t_1x_coco import model, optimizer, train

model.roi_heads.num_classes = NUM_CLASSES
# 17 epochs of the 16,551 images, as Detectron2's config of VOC.
train.max_iter = 18000
lr_multiplier = step_schedule(train.max_iter, milestones=[12000, 16000])
train.output_dir = "./output/faster_rcnn_iwin_t_voc0712"
