"""A detector as far as the attention of its backbone needs one."""

import torch
from torch import nn

from iwin_d2.modeling import IwinTransformer


class TinyDetector(nn.Module):
    """Pads images to a multiple of 32, as an FPN asks for, and runs a small Iwin backbone."""

    def __init__(self, window_size=3, out_features=("res2", "res3", "res4", "res5")):
        super().__init__()
        self.backbone = IwinTransformer(
            embed_dim=8,
            depths=(1, 2, 1, 1),
            num_heads=(1, 2, 2, 4),
            window_size=window_size,
            out_features=out_features,
        )

    def forward(self, batch):
        image = batch[0]["image"].float()[None] / 255 - 0.5
        height, width = image.shape[-2:]
        padded = nn.functional.pad(image, (0, -width % 32, 0, -height % 32))
        return self.backbone(padded)


def sharpen(model):
    """Weights that make attention differ from token to token."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model
