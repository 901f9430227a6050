"""Names and shapes that the tensors of the published models have, in this project's names."""

from collections.abc import Iterator, Sequence

from .architecture import (
    BACKBONE,
    CASCADE_MASK_RCNN,
    CASCADE_RCNN,
    CLASSIFIER,
    FASTER_RCNN,
    MASK_RCNN,
    SEGMENTER,
    VIDEO,
    Architecture,
)

__all__ = ["expected_shapes"]

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]

_WIDTH, _BOX_WIDTH, _CONVS, _STAGES, _ANCHORS = 256, 1024, 4, 3, 3
_SEGMENTER_WIDTH, _AUXILIARY_WIDTH, _SCALES = 512, 256, 4
_DETECTORS = (CASCADE_MASK_RCNN, CASCADE_RCNN, MASK_RCNN, FASTER_RCNN)
_PREFIXES = {BACKBONE: "", CLASSIFIER: "", SEGMENTER: "backbone.", VIDEO: "backbone."}


def expected_shapes(
    architecture: Architecture, *, last_depthwise: bool = False
) -> dict[str, Shape] | None:
    """The tensors of a published kind of model; None if it is of no such kind.

    Args:
        architecture: what model.
        last_depthwise: whether the last stage has depthwise convolutions, as it has in the
            image classifiers for 1024 pixels.
    """
    task, classes = architecture.task, architecture.num_classes
    if architecture.embed_dim is None or task not in (*_PREFIXES, *_DETECTORS):
        return None
    prefix = _PREFIXES.get(task, "backbone.bottom_up.")
    widths = [architecture.embed_dim * 2**stage for stage in range(len(architecture.depths))]
    patch = (architecture.in_chans, *((2,) if task == VIDEO else ()), 4, 4)
    shapes = dict(_backbone(prefix, widths, architecture.depths, patch, last_depthwise))
    if task in (CLASSIFIER, VIDEO):
        shapes.update(_layer(f"{prefix}norm", widths[-1]))
    else:
        for level, width in enumerate(widths):
            shapes.update(_layer(f"{prefix}norm{level}", width))
    if task == VIDEO:
        shapes[f"{prefix}time_embed"] = (1, widths[0], 16, 1, 1)
        if classes is not None:
            shapes.update(_layer("cls_head.fc_cls", classes, widths[-1]))
    if task == CLASSIFIER and classes is not None:
        shapes.update(_layer("head", classes, widths[-1]))
    if task == SEGMENTER:
        shapes.update(_upernet(widths, 0 if classes is None else classes))
    if task in _DETECTORS:
        shapes.update(_pyramid_and_proposals(widths))
        shapes.update(_roi_heads(task, 0 if classes is None else classes))
    return shapes


def _layer(name: str, *weight: int) -> Entries:
    """A weight of this shape, and a bias for its rows."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def _convolution(name: str, channels: int, in_channels: int, side: int) -> Entries:
    """A convolution without bias under BatchNorm."""
    yield f"{name}.weight", (channels, in_channels, side, side)
    yield from _layer(f"{name}.norm", channels)
    yield f"{name}.norm.running_mean", (channels,)
    yield f"{name}.norm.running_var", (channels,)
    yield f"{name}.norm.num_batches_tracked", ()


def _backbone(
    prefix: str, widths: Sequence[int], depths: Sequence[int], patch: Shape, last_depthwise: bool
) -> Entries:
    """The patch embedding and the stages, without norms behind them."""
    last = len(depths) - 1
    yield from _layer(f"{prefix}patch_embed.proj", widths[0], *patch)
    yield from _layer(f"{prefix}patch_embed.norm", widths[0])
    for stage, (dim, depth) in enumerate(zip(widths, depths)):
        for block in range(depth):
            at = f"{prefix}layers.{stage}.blocks.{block}."
            yield from _layer(f"{at}norm1", dim)
            yield from _layer(f"{at}attn.qkv", 3 * dim, dim)
            yield from _layer(f"{at}attn.proj", dim, dim)
            yield from _layer(f"{at}norm2", dim)
            yield from _layer(f"{at}mlp.fc1", 4 * dim, dim)
            yield from _layer(f"{at}mlp.fc2", dim, 4 * dim)
            if stage < last or last_depthwise:
                yield from _layer(f"{at}dwconv.depthwise", dim, 1, 3, 3)
        if stage < last:
            yield from _layer(f"{prefix}layers.{stage}.downsample.norm", dim)
            yield from _layer(f"{prefix}layers.{stage}.downsample.conv", 2 * dim, dim, 3, 3)


def _pyramid_and_proposals(widths: Sequence[int]) -> Entries:
    for level, width in enumerate(widths, start=2):
        yield from _layer(f"backbone.fpn_lateral{level}", _WIDTH, width, 1, 1)
        yield from _layer(f"backbone.fpn_output{level}", _WIDTH, _WIDTH, 3, 3)
    head = "proposal_generator.rpn_head."
    yield from _layer(f"{head}conv", _WIDTH, _WIDTH, 3, 3)
    yield from _layer(f"{head}objectness_logits", _ANCHORS, _WIDTH, 1, 1)
    yield from _layer(f"{head}anchor_deltas", 4 * _ANCHORS, _WIDTH, 1, 1)


def _roi_heads(task: str, classes: int) -> Entries:
    cascade = task in (CASCADE_MASK_RCNN, CASCADE_RCNN)
    for stage in [f"{number}." for number in range(_STAGES)] if cascade else [""]:
        yield from _box_head(f"roi_heads.box_head.{stage}", cascade)
        yield from _layer(f"roi_heads.box_predictor.{stage}cls_score", classes + 1, _BOX_WIDTH)
        yield from _layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 * classes, _BOX_WIDTH)
        if task in (CASCADE_MASK_RCNN, MASK_RCNN):
            yield from _mask_head(f"roi_heads.mask_head.{stage}", classes)


def _box_head(at: str, cascade: bool) -> Entries:
    """4 convolutions under BatchNorm and a linear layer in a cascade, else two linear layers."""
    flat = _WIDTH * 7 * 7
    if not cascade:
        yield from _layer(f"{at}fc1", _BOX_WIDTH, flat)
        yield from _layer(f"{at}fc2", _BOX_WIDTH, _BOX_WIDTH)
        return
    for number in range(1, _CONVS + 1):
        yield from _convolution(f"{at}conv{number}", _WIDTH, _WIDTH, 3)
    yield from _layer(f"{at}fc1", _BOX_WIDTH, flat)


def _mask_head(at: str, classes: int) -> Entries:
    for number in range(1, _CONVS + 1):
        yield from _layer(f"{at}mask_fcn{number}", _WIDTH, _WIDTH, 3, 3)
    yield from _layer(f"{at}deconv", _WIDTH, _WIDTH, 2, 2)
    yield from _layer(f"{at}predictor", classes, _WIDTH, 1, 1)


def _upernet(widths: Sequence[int], classes: int) -> Entries:
    """The head and the auxiliary one."""
    head, width = "sem_seg_head.", _SEGMENTER_WIDTH
    for scale in range(_SCALES):
        yield from _convolution(f"{head}pyramid_pooling.convs.{scale}", width, widths[-1], 1)
    pooled = widths[-1] + _SCALES * width
    yield from _convolution(f"{head}pyramid_pooling.bottleneck", width, pooled, 3)
    for level, channels in enumerate(widths[:-1]):
        yield from _convolution(f"{head}lateral_convs.{level}", width, channels, 1)
        yield from _convolution(f"{head}fpn_convs.{level}", width, width, 3)
    yield from _convolution(f"{head}fpn_bottleneck", width, len(widths) * width, 3)
    yield from _layer(f"{head}predictor", classes, width, 1, 1)
    yield from _convolution(f"{head}auxiliary.convs.0", _AUXILIARY_WIDTH, widths[-2], 3)
    yield from _layer(f"{head}auxiliary.predictor", classes, _AUXILIARY_WIDTH, 1, 1)
