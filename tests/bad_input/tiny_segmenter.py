"""A segmenter of one number a class, which takes real data."""

import torch
from torch import nn


class TinySegmenter(nn.Module):
    """Reads everything that a batch for segmenters has, and learns how frequent classes are."""

    def __init__(self, num_classes: int, ignore_value: int = 255):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(num_classes))
        self.ignore_value = ignore_value

    def forward(self, batch):
        if not self.training and "sem_seg" not in batch[0]:
            return [{"sem_seg": self._scores_of(item)} for item in batch]
        logs = self.scores.log_softmax(0)
        labels = torch.cat([item["sem_seg"].flatten() for item in batch])
        labels = labels[labels != self.ignore_value]
        return {"loss_sem_seg": -logs[labels].sum() / max(len(labels), 1)}

    def _scores_of(self, item):
        return self.scores[:, None, None].expand(-1, item["height"], item["width"])
