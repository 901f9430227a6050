"""A detector of one parameter that takes real data: images go in, a loss or no objects come out."""

import torch
from torch import nn

from iwin_d2.d2.structures import Boxes, Instances


class TinyDetector(nn.Module):
    """Reads everything that a batch for detectors has, and learns the mean of its pixels."""

    def __init__(self, num_classes: int, masks: bool = True):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes))
        self.masks = masks

    def forward(self, batch):
        if not self.training:
            return [{"instances": self._nothing(item)} for item in batch]
        losses = [self._loss(item["image"].float(), item["instances"]) for item in batch]
        return {"loss_mean": torch.stack(losses).mean()}

    def _loss(self, image, instances):
        fields = instances.get_fields()
        assert {"gt_boxes", "gt_classes"} <= fields.keys()
        assert not (self.masks and len(instances)) or "gt_masks" in fields
        return (image.mean() / 255 - self.mean[instances.gt_classes].sum()).square()

    def _nothing(self, item):
        instances = Instances((item["height"], item["width"]))
        instances.pred_boxes = Boxes(torch.zeros(0, 4))
        instances.scores = torch.zeros(0)
        instances.pred_classes = torch.zeros(0, dtype=torch.long)
        if self.masks:
            instances.pred_masks = torch.zeros(0, item["height"], item["width"], dtype=torch.bool)
        return instances
