"""Published parameters and FLOPs of classifiers, from what is counted here."""

import math
from unittest import mock

import pytest
import torch
from torch import nn

from iwin_d2.analysis import analyze_classifier
from iwin_d2.modeling import (
    IwinClassifier,
    IwinTransformer3D,
    VideoClassifier,
    iwin_classifier,
    iwin_video_classifier,
)
from iwin_d2.modeling.published import IMAGE_CLASSIFIERS

# As published: parameters in millions (None where the table has none), GFLOPs.
IMAGES = {
    "iwin_tiny_patch4_window7_224": (30.2, 4.7),
    "iwin_small_patch4_window7_224": (51.6, 9.0),
    "iwin_small_patch4_window12_384": (None, 27.7),
    "iwin_small_patch4_window16_512": (None, 52.0),
    "iwin_small_patch4_window16_1024": (None, 207.9),
    "iwin_base_patch4_window7_224": (91.2, 15.9),
    "iwin_base_patch4_window12_384": (None, 48.3),
    "iwin_base_patch4_window16_512": (None, 89.5),
    "iwin_base_patch4_window16_1024": (None, 358.2),
    "iwin_large_patch4_window7_224_22kto1k": (204.3, 35.4),
    "iwin_large_patch4_window12_384_22kto1k": (None, 106.6),
}
CLIPS = {
    "iwin_tiny_patch244_window77_kinetics400_1k": (29.8, 74),
    "iwin_small_patch244_window77_kinetics400_1k": (51.1, 140),
}
EVERYDAY = ("iwin_tiny_patch4_window7_224",)


def quickly(build, name):
    with mock.patch.object(nn.init, "trunc_normal_"):
        return build(name)


def elements_of_norms(settings):
    """Elements of the results of all norms of a published image classifier."""
    total, side = 0, settings["img_size"] // 4
    for stage, depth in enumerate(settings["depths"]):
        tokens, channels = (side // 2**stage) ** 2, settings["embed_dim"] * 2**stage
        # Two in each block, one before the next stage; behind the last, the final one.
        total += tokens * channels * (2 * depth + 1)
    return total + side**2 * settings["embed_dim"]


@pytest.mark.parametrize(
    "name", [n if n in EVERYDAY else pytest.param(n, marks=pytest.mark.slow) for n in IMAGES]
)
def test_published_flops_of_image_classifiers(name):
    settings = IMAGE_CLASSIFIERS[name]
    side, (parameters, flops) = settings["img_size"], IMAGES[name]
    found = analyze_classifier(quickly(iwin_classifier, name), (side, side))
    # The published counter adds one for each element of a norm.
    as_published = (found.total.multiply_adds + elements_of_norms(settings)) / 1e9
    assert round(as_published, 1) == flops
    assert parameters is None or round(found.total.parameters / 1e6, 1) == parameters
    assert found.frames is None and found.image_size == (side, side)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_published_flops_of_video_classifiers(name):
    parameters, flops = CLIPS[name]
    found = analyze_classifier(quickly(iwin_video_classifier, name), (224, 224), frames=32)
    # The published counter looks at modules: it sees norms and biases of convolutions, but no
    # products of attentions.
    as_published = found.total.multiply_adds - found.attention + found.elementwise
    assert round(as_published / 1e9) == flops
    assert round(found.total.parameters / 1e6, 1) == parameters


SETTINGS = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 2}


@pytest.mark.parametrize("frames", [None, 4])
def test_by_hand(frames):
    """Maps of 16 x 16, 8 x 8, 4 x 4 and 2 x 2, of as many steps of time."""
    if frames is None:
        model, steps, taps = IwinClassifier(num_classes=5, img_size=64, **SETTINGS), 1, 48
    else:
        model, steps, taps = VideoClassifier(IwinTransformer3D(**SETTINGS), 5), 2, 96
    found = analyze_classifier(model.train(), (64, 64), frames=frames)
    assert model.training
    expected, attention = 256 * steps * taps * 16, 0
    for stage in range(4):
        tokens, dim = steps * 256 // 4**stage, 16 * 2**stage
        expected += tokens * 12 * dim**2  # qkv, projection, MLP
        attention += 2 * tokens * (4 * steps) * dim
        expected += tokens * 9 * dim * (stage < 3)  # depthwise convolution
        expected += tokens // 4 * 9 * dim * 2 * dim * (stage < 3)  # downsampling
    assert found.attention == attention
    assert found.total.multiply_adds == expected + attention + 128 * 5
    assert found.total.parameters == sum(map(math.prod, (p.shape for p in model.parameters())))
    parts = {module.name: module for module in found.modules}
    head = parts["head" if frames is None else "cls_head.fc_cls"]
    assert (head.parameters, head.multiply_adds, head.activations) == (128 * 5 + 5, 128 * 5, 5)


def test_images_of_other_channels():
    model = IwinClassifier(num_classes=5, img_size=64, in_chans=5, **SETTINGS)
    one, three = (
        analyze_classifier(m, (64, 64), channels=channels).total.multiply_adds
        for m, channels in (
            (model, 5),
            (IwinClassifier(num_classes=5, img_size=64, **SETTINGS), 3),
        )
    )
    assert one - three == 256 * 16 * 2 * 16
    assert torch.is_grad_enabled()
