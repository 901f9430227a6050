"""The comparison in the benchmarks is with the same function."""

import pytest
import torch

from iwin_d2.benchmark.published import (
    PublishedBlock,
    PublishedDownsample,
    PublishedPatchEmbed,
    use_published_blocks,
)
from iwin_d2.benchmark.video import VideoStack
from iwin_d2.modeling import IwinTransformer


@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
def test_published_formulation_computes_the_same(size):
    torch.manual_seed(0)
    model = IwinTransformer(embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = model(images)
        published = use_published_blocks(model)(images)
    classes = [type(module) for module in model.modules()]
    counts = [classes.count(c) for c in (PublishedBlock, PublishedDownsample, PublishedPatchEmbed)]
    assert counts == [5, 3, 1]
    for name, value in ours.items():
        torch.testing.assert_close(published[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (36, 60)])
@pytest.mark.parametrize("num_frames", [2, 6])
def test_published_formulation_of_a_clip(size, num_frames):
    torch.manual_seed(0)
    model = VideoStack(16, [1, 1, 2, 1], [1, 2, 4, 8], num_frames=num_frames).eval()
    torch.nn.init.normal_(model.time_embed)
    clips = torch.randn(2, 3, num_frames, *size)
    with torch.no_grad():
        ours = model(clips)
        published = use_published_blocks(model)(clips)
    assert ours.shape == (2, num_frames // 2, -(-size[0] // 32), -(-size[1] // 32), 128)
    assert sum(isinstance(module, PublishedBlock) for module in model.modules()) == 5
    torch.testing.assert_close(published, ours, rtol=1e-4, atol=1e-5)
