"""The comparison in the benchmarks is with the same function."""

import pytest
import torch

from iwin_d2.benchmark.published import (
    PublishedBlock,
    PublishedDownsample,
    PublishedPatchEmbed,
    use_published_blocks,
)
from iwin_d2.modeling import IwinClassifier, IwinTransformer, IwinTransformer3D

SETTINGS = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}


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
    model = IwinTransformer3D(**SETTINGS).eval()
    torch.nn.init.normal_(model.time_embed)
    clips = torch.randn(2, 3, num_frames, *size)
    with torch.no_grad():
        ours = model(clips)
        published = use_published_blocks(model)(clips)
    assert ours.shape == (2, 128, num_frames // 2, -(-size[0] // 32), -(-size[1] // 32))
    assert sum(isinstance(module, PublishedBlock) for module in model.modules()) == 5
    torch.testing.assert_close(published, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (20, 250), (3, 3)])
def test_published_formulation_with_windows_of_the_maps_size(size):
    torch.manual_seed(0)
    model = IwinClassifier(num_classes=5, img_size=96, **SETTINGS).eval()
    for stage in model.layers:
        for block in stage.blocks:
            block.attn.qkv.weight.data *= 20  # attention far from uniform, so that windows tell
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = model.forward_features(images)
        published = use_published_blocks(model).forward_features(images)
    assert sum(isinstance(module, PublishedBlock) for module in model.modules()) == 5
    torch.testing.assert_close(published, ours, rtol=1e-4, atol=1e-4)
