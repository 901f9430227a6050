"""The feature pyramid: names, shapes, and its sums against ones written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import BACKBONE_REGISTRY, FPN, Backbone, LastLevelMaxPool


class Pooled(Backbone):
    """Feature maps that are the image averaged down, with 3, 6, 9 ... channels."""

    def __init__(self, strides=(4, 8, 16)):
        super().__init__()
        self._out_features = [f"res{i}" for i in range(2, 2 + len(strides))]
        self._out_feature_strides = dict(zip(self._out_features, strides))
        self._out_feature_channels = {
            name: 3 * (i + 1) for i, name in enumerate(self._out_features)
        }

    def forward(self, x):
        return {
            name: F.avg_pool2d(x, stride).repeat(1, self._out_feature_channels[name] // 3, 1, 1)
            for name, stride in self._out_feature_strides.items()
        }


def test_backbone_defaults():
    backbone = Pooled()
    assert backbone.size_divisibility == 0
    assert backbone.padding_constraints == {}
    assert backbone.output_shape()["res3"] == ShapeSpec(channels=6, stride=8)
    with pytest.raises(TypeError):
        Backbone()


def test_backbones_are_found_by_name():
    BACKBONE_REGISTRY.register(Pooled)
    assert BACKBONE_REGISTRY.get("Pooled") is Pooled


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_pyramid_written_out(fuse_type):
    torch.manual_seed(0)
    fpn = FPN(
        Pooled(),
        ["res2", "res3", "res4"],
        8,
        top_block=None,
        fuse_type=fuse_type,
    )
    x = torch.randn(2, 3, 32, 48)
    maps, got = fpn.bottom_up(x), fpn(x)
    assert list(got) == ["p2", "p3", "p4"]
    inner = fpn.fpn_lateral4(maps["res4"])
    assert torch.allclose(got["p4"], fpn.fpn_output4(inner), atol=1e-6)
    for level in (3, 2):
        above = inner.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        inner = getattr(fpn, f"fpn_lateral{level}")(maps[f"res{level}"]) + above
        if fuse_type == "avg":
            inner = inner / 2
        expected = getattr(fpn, f"fpn_output{level}")(inner)
        assert torch.allclose(got[f"p{level}"], expected, atol=1e-5)


def test_pyramid_with_a_last_level():
    fpn = FPN(
        Pooled((4, 8, 16, 32)),
        ["res2", "res3", "res4", "res5"],
        8,
        norm="BN",
        top_block=LastLevelMaxPool(),
        square_pad=64,
    )
    got = fpn(torch.randn(1, 3, 64, 96))
    assert list(got) == ["p2", "p3", "p4", "p5", "p6"]
    assert torch.equal(got["p6"], got["p5"][:, :, ::2, ::2])
    shapes = fpn.output_shape()
    assert {name: s.stride for name, s in shapes.items()} == {
        name: 2 ** int(name[1]) for name in got
    }
    assert {s.channels for s in shapes.values()} == {8}
    assert fpn.size_divisibility == 32
    assert fpn.padding_constraints == {"square_size": 64}


def test_pyramid_parameters_are_named_as_in_published_checkpoints():
    fpn = FPN(Pooled(), ["res3", "res4"], 8)
    expected = {
        f"fpn_{kind}{level}.{name}"
        for kind in ("lateral", "output")
        for level in (3, 4)
        for name in ("weight", "bias")
    }
    assert set(fpn.state_dict()) == expected
    with_norm = FPN(Pooled(), ["res3", "res4"], 8, norm=lambda c: nn.GroupNorm(2, c))
    assert "fpn_lateral3.norm.weight" in with_norm.state_dict()
    assert "fpn_lateral3.bias" not in with_norm.state_dict()
    assert all((p == 0).all() for name, p in fpn.named_parameters() if name.endswith("bias"))


def test_strides_must_double():
    with pytest.raises((ValueError, AssertionError)):
        FPN(Pooled((4, 16)), ["res2", "res3"], 8)
