"""From a published two-stage detector to a small one, of three to five million parameters."""

_CHANNELS = 64
_FC = 256


def make_small(model):
    """Shrink a two-stage detector's config to what learns from scratch on a CPU, at about 300 px.

    A head keeps its kind: half of the box head's convolutions, all of its fully connected layers.
    """
    model.backbone.bottom_up.update(embed_dim=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    model.backbone.out_channels = _CHANNELS
    model.proposal_generator.head.in_channels = _CHANNELS
    model.proposal_generator.anchor_generator.sizes = [[16], [32], [64], [128], [256]]
    model.proposal_generator.update(
        batch_size_per_image=128, pre_nms_topk=(500, 300), post_nms_topk=(250, 100)
    )
    heads = model.roi_heads
    heads.batch_size_per_image = 64
    # One sample a bin: on a CPU, pooling with more of them takes as long as all convolutions.
    heads.box_pooler.sampling_ratio = 1
    heads.mask_pooler.sampling_ratio = 1
    for box_head in _each(heads, "box_head"):
        box_head.input_shape.channels = _CHANNELS
        box_head.update(
            conv_dims=[_CHANNELS] * (len(box_head.conv_dims) // 2),
            fc_dims=[_FC] * len(box_head.fc_dims),
        )
    for box_predictor in _each(heads, "box_predictor"):
        box_predictor.input_shape.channels = _FC
    for mask_head in _each(heads, "mask_head"):
        mask_head.input_shape.channels = _CHANNELS
        mask_head.conv_dims = [_CHANNELS] * 3


def _each(heads, part):
    """The parts of the stages of a cascade, or the one part of other heads."""
    return heads[f"{part}s"] if f"{part}s" in heads else [heads[part]]
