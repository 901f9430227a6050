"""The backbone by yacs configs, on either framework."""

import pytest
import torch
from yacs.config import CfgNode

from iwin_d2.d2.layers import ShapeSpec
from iwin_d2.d2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import IwinTransformer, add_iwin_config


def config(**iwin):
    fpn = {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 16, "NORM": ""}
    cfg = CfgNode({"MODEL": {"BACKBONE": {"FREEZE_AT": 0}, "FPN": {**fpn, "FUSE_TYPE": "sum"}}})
    add_iwin_config(cfg)
    small = {"EMBED_DIM": 8, "DEPTHS": [1, 1, 1, 1], "NUM_HEADS": [1, 1, 2, 2], **iwin}
    cfg.MODEL.IWIN.update(CfgNode(small))
    return cfg


def build(name, cfg, channels=3):
    return BACKBONE_REGISTRY.get(name)(cfg, ShapeSpec(channels=channels))


def shapes(backbone, channels=3):
    return {k: tuple(v.shape) for k, v in backbone(torch.zeros(1, channels, 64, 96)).items()}


def test_defaults_are_iwin_t():
    cfg = CfgNode({"MODEL": {"BACKBONE": {"FREEZE_AT": 0}}})
    add_iwin_config(cfg)
    with torch.device("meta"):
        found = {k: v.shape for k, v in build("build_iwin_backbone", cfg).state_dict().items()}
        expected = {k: v.shape for k, v in IwinTransformer().state_dict().items()}
    assert found == expected


def test_bare_backbone():
    cfg = config(OUT_FEATURES=["res3", "res5"], DROP_PATH_RATE=0.2, WINDOW_SIZE=5)
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    model = build("build_iwin_backbone", cfg, channels=4)
    assert isinstance(model, IwinTransformer) and isinstance(model, Backbone)
    assert shapes(model, 4) == {"res3": (1, 16, 8, 12), "res5": (1, 64, 2, 3)}
    assert model.layers[1].blocks[0].attn.window_size == 5
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"patch_embed", "layers"}
    assert all(p.requires_grad for p in model.layers[1].parameters())


def test_fpn():
    model = build("build_iwin_fpn_backbone", config())
    assert isinstance(model, FPN)
    assert shapes(model) == {f"p{i}": (1, 16, -(-64 // 2**i), -(-96 // 2**i)) for i in range(2, 7)}
    assert {k: s.stride for k, s in model.output_shape().items()} == {
        f"p{i}": 2**i for i in range(2, 7)
    }


def test_retinanet_fpn():
    cfg = config()  # the maps are those that the FPN takes
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    model = build("build_retinanet_iwin_fpn_backbone", cfg)
    assert shapes(model) == {f"p{i}": (1, 16, -(-64 // 2**i), -(-96 // 2**i)) for i in range(3, 8)}
    assert model.top_block.p6.in_channels == 64
    bottom, image = model.bottom_up, torch.randn(1, 3, 64, 96)
    p6 = model.top_block.p6(bottom(image)["res5"])
    torch.testing.assert_close(model(image)["p6"], p6)
    torch.testing.assert_close(model(image)["p7"], model.top_block.p7(p6.relu()))


def test_maps_that_are_named_are_made_also_where_nothing_takes_them():
    cfg = config(OUT_FEATURES=["res2", "res3", "res4", "res5"])
    cfg.MODEL.FPN.IN_FEATURES = ["res4", "res5"]
    assert len(build("build_iwin_fpn_backbone", cfg).bottom_up.output_shape()) == 4


@pytest.mark.parametrize(
    ("name", "section", "values", "sentence"),
    [
        ("iwin", "IWIN", {"NUM_HEADS": [1, 3, 2, 2]}, "MODEL.IWIN describes no backbone .*3 heads"),
        ("iwin", "IWIN", {"OUT_FEATURES": ["res9"]}, r"describes no backbone .*\['res9'\]"),
        ("iwin", "BACKBONE", {"FREEZE_AT": 6}, "correct it, MODEL.BACKBONE.FREEZE_AT or"),
        ("iwin_fpn", "FPN", {"IN_FEATURES": []}, r"describes no backbone .*got \[\]"),
        ("iwin_fpn", "IWIN", {"OUT_FEATURES": ["res5"]}, "IN_FEATURES has res2, res3, res4, but"),
        ("retinanet_iwin_fpn", "FPN", {"IN_FEATURES": ["res3"]}, r"is \['res3'\], but p6 is made"),
    ],
)
def test_what_fits_nothing_is_named(name, section, values, sentence):
    cfg = config()
    cfg.MODEL[section].update(CfgNode(values))
    with pytest.raises(ConfigError, match=sentence):
        build(f"build_{name}_backbone", cfg)


def test_a_config_without_the_keys_says_what_to_call():
    cfg = CfgNode({"MODEL": {"BACKBONE": {"FREEZE_AT": 0}}})
    with pytest.raises(ConfigError, match=r"call iwin_d2.modeling.add_iwin_config\(cfg\) right"):
        build("build_iwin_backbone", cfg)
