"""The comparison in the benchmarks is with the same function."""

import pytest
import torch

from iwin_d2.benchmark.published import PublishedBlock, use_published_blocks
from iwin_d2.modeling import IwinTransformer


@pytest.mark.parametrize("size", [(64, 96), (61, 75)])
def test_published_formulation_computes_the_same(size):
    torch.manual_seed(0)
    model = IwinTransformer(embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4]).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours = model(images)
        published = use_published_blocks(model)(images)
    assert sum(isinstance(m, PublishedBlock) for m in model.modules()) == 5
    for name, value in ours.items():
        torch.testing.assert_close(published[name], value, rtol=1e-4, atol=1e-5)
