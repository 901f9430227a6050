"""The backbone for Detectron2's yacs configs: builders in its registry, and their keys.

Importing `iwin_d2.modeling` registers the builders; MODEL.BACKBONE.NAME chooses one of them.
"""

from collections.abc import Sequence

from ..d2.layers import ShapeSpec
from ..d2.modeling import BACKBONE_REGISTRY, FPN, LastLevelMaxPool, LastLevelP6P7
from ..errors import ConfigError
from .iwin import STAGE_NAMES, IwinTransformer

__all__ = [
    "add_iwin_config",
    "build_iwin_backbone",
    "build_iwin_fpn_backbone",
    "build_retinanet_iwin_fpn_backbone",
]


def add_iwin_config(cfg) -> None:
    """Add the keys MODEL.IWIN to a yacs config, with the values of Iwin-T.

    Call it before a file that sets them is merged. MODEL.BACKBONE.FREEZE_AT holds as for
    Detectron2's ResNet, whose default there, 2, freezes patch embedding and first stage.

    EMBED_DIM, DEPTHS, NUM_HEADS, WINDOW_SIZE, MLP_RATIO, DROP_PATH_RATE, USE_CHECKPOINT and
    OUT_FEATURES are the arguments of `IwinTransformer`; empty OUT_FEATURES are what
    MODEL.FPN.IN_FEATURES names or, without an FPN, all four maps.

    Args:
        cfg: a CfgNode with MODEL, such as `detectron2.config.get_cfg()`.
    """
    node = type(cfg)()
    node.EMBED_DIM = 96
    node.DEPTHS = [2, 2, 6, 2]
    node.NUM_HEADS = [3, 6, 12, 24]
    node.WINDOW_SIZE = 7
    node.MLP_RATIO = 4.0
    node.DROP_PATH_RATE = 0.0
    node.OUT_FEATURES = []
    node.USE_CHECKPOINT = False
    cfg.MODEL.IWIN = node


@BACKBONE_REGISTRY.register()
def build_iwin_backbone(cfg, input_shape: ShapeSpec) -> IwinTransformer:
    """Build the bare backbone that MODEL.IWIN and MODEL.BACKBONE.FREEZE_AT describe."""
    return _backbone(cfg, input_shape, STAGE_NAMES)


@BACKBONE_REGISTRY.register()
def build_iwin_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Build the backbone under an FPN with p6 by subsampling, as Faster and Mask R-CNN want it."""
    bottom_up = _backbone(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES)
    return _fpn(cfg, bottom_up, LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_iwin_fpn_backbone(cfg, input_shape: ShapeSpec) -> FPN:
    """Build the backbone under an FPN with p6 and p7 by convolutions, as RetinaNet wants it.

    Raises:
        ConfigError: also where the FPN does not take res5, which p6 is made from.
    """
    bottom_up = _backbone(cfg, input_shape, cfg.MODEL.FPN.IN_FEATURES)
    if "res5" not in cfg.MODEL.FPN.IN_FEATURES:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES is {list(cfg.MODEL.FPN.IN_FEATURES)}, but p6 is made from "
            "res5: add it, or set MODEL.BACKBONE.NAME to build_iwin_fpn_backbone."
        )
    channels = bottom_up.output_shape()["res5"].channels
    return _fpn(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _backbone(cfg, input_shape: ShapeSpec, taken: Sequence[str]) -> IwinTransformer:
    """The backbone of a config; `taken` are its maps where the config does not name them."""
    if "IWIN" not in cfg.MODEL:
        raise ConfigError(
            "The config has no MODEL.IWIN: call iwin_d2.modeling.add_iwin_config(cfg) right after "
            "cfg = get_cfg()."
        )
    iwin = cfg.MODEL.IWIN
    try:
        return IwinTransformer(
            embed_dim=iwin.EMBED_DIM,
            depths=iwin.DEPTHS,
            num_heads=iwin.NUM_HEADS,
            window_size=iwin.WINDOW_SIZE,
            mlp_ratio=iwin.MLP_RATIO,
            drop_path_rate=iwin.DROP_PATH_RATE,
            in_chans=input_shape.channels,
            out_features=iwin.OUT_FEATURES or taken,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
            use_checkpoint=iwin.USE_CHECKPOINT,
        )
    except ValueError as error:
        raise ConfigError(
            f"MODEL.IWIN describes no backbone ({error}): correct it, MODEL.BACKBONE.FREEZE_AT or "
            "MODEL.FPN.IN_FEATURES."
        ) from error


def _fpn(cfg, bottom_up: IwinTransformer, top_block) -> FPN:
    fpn = cfg.MODEL.FPN
    lacking = [name for name in fpn.IN_FEATURES if name not in bottom_up.out_features]
    if lacking:
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES has {', '.join(lacking)}, but MODEL.IWIN.OUT_FEATURES is "
            f"{list(bottom_up.out_features)}: add it there, or leave OUT_FEATURES empty."
        )
    return FPN(
        bottom_up=bottom_up,
        in_features=fpn.IN_FEATURES,
        out_channels=fpn.OUT_CHANNELS,
        norm=fpn.NORM,
        top_block=top_block,
        fuse_type=fpn.FUSE_TYPE,
    )
