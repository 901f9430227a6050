"""Detectron2's own panoptic FPN R50 1x, with its ResNet-50 replaced by Iwin-T."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from iwin_d2.modeling import IwinTransformer

_cfg = model_zoo.get_config("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py")
dataloader, lr_multiplier, model, train = (
    _cfg[key] for key in ("dataloader", "lr_multiplier", "model", "train")
)

# The heads for boxes, masks and stuff see the pyramid alone.
model.backbone.bottom_up = L(IwinTransformer)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    num_heads=[3, 6, 12, 24],
    drop_path_rate=0.1,
    freeze_at=0,
    out_features=["res2", "res3", "res4", "res5"],
)

# How the weights were trained: images in RGB with ImageNet's statistics, and AdamW.
model.update(
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    input_format="RGB",
)
dataloader.train.mapper.image_format = "RGB"
optimizer = model_zoo.get_config("common/optim.py").AdamW
optimizer.update(lr=1e-4, weight_decay=0.05)
train.init_checkpoint = ""  # the ResNet's
