"""Inference of segmenters: against whole maps of scores in float64, and what memory it takes."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_segmenter import toy_segmenter

from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.modeling import SemanticSegmentor
from iwin_d2.errors import ConfigError
from iwin_d2.modeling import segmentation_inference
from iwin_d2.modeling.segmentation_inference import (
    SegmenterInference,
    is_plain_segmenter,
    is_segmenter,
    predicted_labels,
)
from iwin_d2.modeling.tta import View

CONFIGS = Path(__file__).resolve().parents[2] / "configs/common/models"
WINDOWS = [  # window, stride
    ((64, 48), (64, 48)),
    ((64, 48), (43, 32)),
    ((33, 50), (11, 7)),
    ((40, 1000), (40, 500)),
]


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def bilinear(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def expected_scores(model, item, window=None, stride=None, scales=(1.0,), flip=False):
    """Probabilities in float64: all maps in full size, window by window, view by view."""
    model = copy.deepcopy(model).double()
    image = item["image"]
    size = item.get("height", image.shape[1]), item.get("width", image.shape[2])
    total, views = 0.0, 0
    for scale in scales:
        for flipped in (False, True) if flip else (False,):
            seen = View(scale, flipped).of_image(image).double()
            logits = bilinear(windowed_logits(model, seen, window, stride), size)
            scores = logits[0].softmax(0)
            total = total + (scores.flip(-1) if flipped else scores)
            views += 1
    return total / views


def windowed_logits(model, image, window, stride):
    x = ((image - model.pixel_mean) / model.pixel_std)[None]
    height, width = x.shape[-2:]
    down, right = window or (height, width)
    step_down, step_right = stride or (down, right)
    total, count = 0.0, torch.zeros(height, width)
    for top in range(0, max(height - down, 0) + step_down, step_down):
        for left in range(0, max(width - right, 0) + step_right, step_right):
            bottom, end = min(top + down, height), min(left + right, width)
            y, x0 = max(bottom - down, 0), max(end - right, 0)
            part = x[..., y:bottom, x0:end]
            multiple = max(model.backbone.size_divisibility, 1)
            part = F.pad(part, (0, -part.shape[-1] % multiple, 0, -part.shape[-2] % multiple))
            logits = model.sem_seg_head.layers(model.backbone(part))
            logits = bilinear(logits, part.shape[-2:])[..., : bottom - y, : end - x0]
            total = total + F.pad(logits, (x0, width - end, y, height - bottom))
            count[y:bottom, x0:end] += 1
    assert (count > 0).all()
    return total / count


def assert_labels(labels, scores):
    """Labels are those of the best scores, where two are not next to equal."""
    best = scores.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert labels.dtype == torch.int32 and labels.shape == scores.shape[1:]
    assert torch.equal(labels[clear], scores.argmax(0)[clear].int())
    assert clear.float().mean() > 0.99 and len(labels.unique()) > 2


# ---- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("output", [None, (40, 333), (203, 130)])
@pytest.mark.parametrize(("window", "stride"), [(None, None), *WINDOWS])
@pytest.mark.parametrize("size", [(61, 47), (130, 203), (300, 90)])
@torch.no_grad()
def test_whole_images_and_windows(size, window, stride, output):
    model, item = toy_segmenter(), {"image": picture(*size)}
    if output:
        item |= {"height": output[0], "width": output[1]}
    expected = expected_scores(model, item, window, stride)
    (found,) = SegmenterInference(model, window, stride, labels_only=True)([item])
    assert list(found) == ["sem_seg_labels"]
    assert_labels(found["sem_seg_labels"], expected)
    (found,) = SegmenterInference(model, window, stride, labels_only=False)([item])
    assert list(found) == ["sem_seg"] and found["sem_seg"].dtype == torch.float32
    torch.testing.assert_close(found["sem_seg"].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(None, None), ((64, 48), (43, 32))])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), True), ((0.6, 1.0, 1.7), True), ((2,), 0)])
@torch.no_grad()
def test_several_views(window, stride, scales, flip):
    model, item = toy_segmenter(), {"image": picture(70, 145), "height": 150, "width": 131}
    expected = expected_scores(model, item, window, stride, scales, flip)
    (labels,) = SegmenterInference(model, window, stride, scales, flip, labels_only=True)([item])
    assert_labels(labels["sem_seg_labels"], expected)
    (scores,) = SegmenterInference(model, window, stride, scales, flip, labels_only=False)([item])
    torch.testing.assert_close(scores["sem_seg"].double(), expected, rtol=0, atol=1e-5)
    plain = expected_scores(model, item, window, stride)
    assert (plain - expected).abs().max() > 1e-2  # the views do differ


@pytest.mark.parametrize("upright", [True, False])
@torch.no_grad()
def test_stripes(upright):
    """More windows than are held in a row, whichever side is the longer one."""
    size = (230, 190) if upright else (190, 230)
    model, item = toy_segmenter(), {"image": picture(*size)}
    expected = expected_scores(model, item, (16, 16), (10, 10), flip=True)
    (found,) = SegmenterInference(model, 16, 10, flip=True)([item])
    assert_labels(found["sem_seg_labels"], expected)


side = st.integers(1, 60)


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(side, side),
    output=st.tuples(side, side),
    window=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    share=st.tuples(st.floats(0.15, 1), st.floats(0.15, 1)),
    scales=st.sampled_from([(1.0,), (1.0, 0.7), (1.6,)]),
    flip=st.booleans(),
    tile=st.integers(1, 40),
    across=st.integers(1, 6),
    batch_size=st.integers(1, 5),
)
@torch.no_grad()
def test_whatever_the_sizes_are(
    size, output, window, share, scales, flip, tile, across, batch_size
):
    model = toy_segmenter()
    stride = tuple(max(int(side * part), 1) for side, part in zip(window, share))
    item = {"image": picture(*size), "height": output[0], "width": output[1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation_inference, "_TILE", tile)
        patch.setattr(segmentation_inference, "_ACROSS", across)
        seen = {"scales": scales, "flip": flip, "batch_size": batch_size}
        (found,) = SegmenterInference(model, window, stride, labels_only=False, **seen)([item])
        (labels,) = SegmenterInference(model, window, stride, **seen)([item])
    expected = expected_scores(model, item, window, stride, scales, flip)
    torch.testing.assert_close(found["sem_seg"].double(), expected, rtol=0, atol=1e-5)
    best = expected.topk(2, 0).values
    clear = best[0] - best[1] > 1e-5
    assert torch.equal(labels["sem_seg_labels"][clear], expected.argmax(0)[clear].int())


@torch.no_grad()
def test_outputs_much_smaller_and_much_larger_than_the_image():
    model, image = toy_segmenter(), picture(200, 260)
    for size in ((7, 3), (1, 1), (900, 700)):
        item = {"image": image, "height": size[0], "width": size[1]}
        (found,) = SegmenterInference(model, 32, 20, labels_only=False)([item])
        expected = expected_scores(model, item, (32, 32), (20, 20))
        torch.testing.assert_close(found["sem_seg"].double(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_backbones_that_want_multiples_of_a_number():
    model, item = toy_segmenter(divisibility=32), {"image": picture(75, 141)}
    for window, stride in ((None, None), ((50, 70), (50, 35))):
        (found,) = SegmenterInference(model, window, stride, labels_only=False)([item])
        expected = expected_scores(model, item, window, stride)
        torch.testing.assert_close(found["sem_seg"].double(), expected, rtol=0, atol=1e-5)
    assert all(side % 32 == 0 for shape in model.backbone.seen for side in shape[-2:])


@torch.no_grad()
def test_a_whole_image_is_as_the_model_itself_sees_it():
    model, item = toy_segmenter(), {"image": picture(64, 96), "height": 100, "width": 77}
    (plain,) = model([item])
    (found,) = SegmenterInference(model)([item])
    torch.testing.assert_close(found["sem_seg"], plain["sem_seg"].softmax(0))
    torch.testing.assert_close(found["sem_seg"].sum(0), torch.ones(100, 77))


@torch.no_grad()
def test_heads_that_give_nothing_but_the_upsampled_logits():
    class Opaque(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, features, targets=None):
            return self.head(features, targets)

    model, item = toy_segmenter(), {"image": picture(64, 96), "height": 100, "width": 77}
    whole, windows = SegmenterInference(model), SegmenterInference(model, 32, 20)
    expected = whole([item])[0]["sem_seg"], windows([item])[0]["sem_seg_labels"]
    model.sem_seg_head = Opaque(model.sem_seg_head)
    torch.testing.assert_close(whole([item])[0]["sem_seg"], expected[0])
    assert (windows([item])[0]["sem_seg_labels"] != expected[1]).float().mean() < 1e-3


@pytest.mark.parametrize("name", ["upernet_iwin", "semantic_fpn_iwin"])
@torch.no_grad()
def test_our_own_heads(name):
    """On Iwin backbones, whose result for a window is nobody else's."""
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py")).model
    backbone = cfg.backbone.get("bottom_up", cfg.backbone)
    backbone.update(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    cfg.sem_seg_head.update({"channels": 16} if "channels" in cfg.sem_seg_head else {})
    torch.manual_seed(0)
    model = instantiate(cfg).eval()
    model.sem_seg_head.predictor.weight.mul_(30)
    item = {"image": picture(100, 133), "height": 120, "width": 90}
    for window, stride in ((None, None), ((64, 75), (43, 50))):
        (found,) = SegmenterInference(model, window, stride, flip=True, labels_only=False)([item])
        expected = expected_scores(model, item, window, stride, flip=True)
        torch.testing.assert_close(found["sem_seg"].double(), expected, rtol=0, atol=1e-4)
        assert len(expected.argmax(0).unique()) > 2
    (plain,) = model([{"image": picture(64, 96)}])
    (whole,) = SegmenterInference(model)([{"image": picture(64, 96)}])
    torch.testing.assert_close(whole["sem_seg"], plain["sem_seg"].softmax(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 32])
def test_images_of_a_batch_are_as_those_alone(window):
    """Whatever their sizes: padded to one, they would come out otherwise."""
    model = toy_segmenter()
    images = [picture(40, 60, 1), picture(64, 52, 2), picture(40, 60, 3), picture(33, 90, 4)]
    items = [{"image": image, "height": 50 + i, "width": 70} for i, image in enumerate(images)]
    for labels_only in (False, True):
        inference = SegmenterInference(model, window, flip=True, labels_only=labels_only)
        together = inference(items)
        for item, output in zip(items, together):
            (alone,) = inference([item])
            key = "sem_seg_labels" if labels_only else "sem_seg"
            torch.testing.assert_close(output[key], alone[key], rtol=0, atol=1e-5)
            assert output[key].shape[-2:] == (item["height"], item["width"])


@pytest.mark.parametrize("window", [None, 48])
def test_mixed_precision(window):
    model, item = toy_segmenter(), {"image": picture(100, 90)}
    expected = SegmenterInference(model, window, labels_only=False)([item])[0]["sem_seg"]
    for labels_only in (False, True):
        inference = SegmenterInference(model, window, flip=True, labels_only=labels_only)
        plain = inference([item])[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (output,) = inference([item])
        if labels_only:
            assert (predicted_labels(output) == predicted_labels(plain)).float().mean() > 0.95
        else:
            assert output["sem_seg"].dtype == torch.float32
            torch.testing.assert_close(output["sem_seg"], plain["sem_seg"], rtol=0, atol=0.05)
    model.sem_seg_head.layers = lambda features: (
        4 * model.sem_seg_head.predictor(features["res2"]).to(torch.float16)
    )
    half = SegmenterInference(model, window, labels_only=False)([item])[0]["sem_seg"]
    torch.testing.assert_close(half, expected, rtol=0, atol=5e-3)


# ---- what is seen, and held ---------------------------------------------------------------------


def test_each_window_is_seen_once_in_batches():
    model, item = toy_segmenter(), {"image": picture(100, 130)}
    labels = []
    for batch_size in (None, 1, 3):
        model.backbone.seen.clear()
        inference = SegmenterInference(model, (40, 50), (20, 20), batch_size=batch_size)
        labels.append(inference([item])[0]["sem_seg_labels"])
        batches = [shape[0] for shape in model.backbone.seen]
        assert sum(batches) == 4 * 5 and max(batches) == (batch_size or 1)
        assert {shape[2:] for shape in model.backbone.seen} == {(40, 50)}
    assert (labels[0] != labels[1]).sum() == 0 and (labels[0] != labels[2]).float().mean() < 1e-3


def test_images_of_one_size_are_seen_together_in_each_view():
    model = toy_segmenter()
    items = [{"image": picture(*size)} for size in ((40, 60), (20, 60), (40, 60))]
    SegmenterInference(model, scales=(1.0, 2.0))(items)
    expected = [(2, 3, 40, 60), (2, 3, 80, 120), (1, 3, 20, 60), (1, 3, 40, 120)]
    assert model.backbone.seen == expected


def test_stripes_see_few_windows_twice():
    model = toy_segmenter()
    for size in ((40, 700), (700, 40)):  # one stripe, along the longer side
        model.backbone.seen.clear()
        SegmenterInference(model, 40, 30)([{"image": picture(*size)}])
        assert len(model.backbone.seen) == 23
    model.backbone.seen.clear()
    SegmenterInference(model, 40, 30)([{"image": picture(700, 1000)}])
    assert len(model.backbone.seen) == 33 * (23 + 1)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest result has, the images in float32 aside."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                owned = value.untyped_storage().nbytes() // value.element_size()
                self.numbers = max(self.numbers, owned)
        return result


@pytest.mark.parametrize("flip", [False, True])
def test_memory_does_not_depend_on_the_size_of_the_image(flip, monkeypatch):
    """Neither the largest tensor, nor how many logits of windows are held at a time."""
    classes = 20
    views, held, largest = [], [], []
    see, look = SegmenterInference._see, SegmenterInference._look

    def note_views(*args):
        views[:] = see(*args)
        return list(views)

    def note_held(*args):
        look(*args)
        numbers = sum(x.values.numel() for view in views for x in view.held.values())
        held[-1] = max(held[-1], numbers)

    monkeypatch.setattr(SegmenterInference, "_see", note_views)
    monkeypatch.setattr(SegmenterInference, "_look", note_held)
    inference = SegmenterInference(toy_segmenter(num_classes=classes), 32, 21, flip=flip)
    for size in ((32, 32), (95, 95), (389, 389), (158, 431)):
        held.append(0)
        with Largest() as mode:
            inference([{"image": picture(*size), "height": size[0] + 50, "width": size[1]}])
        largest.append(mode.numbers)
    assert max(largest) <= classes * 128 * 128
    window = (2 if flip else 1) * classes * 8 * 8
    # Of a row of sixteen windows a little more than the third that the next row overlaps, and of
    # those that a rectangle depends on all.
    assert held[0] == window and max(held) <= (2 * 3 + 16 * 0.4) * window


def test_no_gradients_and_nothing_left_behind():
    model, item = toy_segmenter(), {"image": picture(90, 90)}
    (output,) = SegmenterInference(model, 40, 30, labels_only=False)([item])
    assert not output["sem_seg"].requires_grad
    assert all(p.grad is None for p in model.parameters())


# ---- what it is told ----------------------------------------------------------------------------


def test_labels_of_outputs():
    scores = torch.tensor([[[0.1, 3.0]], [[0.2, -1.0]]])
    for kind in (scores, scores.half(), scores.bfloat16()):
        labels = predicted_labels({"sem_seg": kind})
        assert labels.tolist() == [[1, 0]] and labels.dtype == torch.int32
    labels = predicted_labels({"sem_seg_labels": torch.tensor([[3, 4]], dtype=torch.uint8)})
    assert labels.tolist() == [[3, 4]] and labels.dtype == torch.int32
    with pytest.raises(ConfigError, match=r"^The model gives 'instances', where a semantic seg"):
        predicted_labels({"instances": None})
    with pytest.raises(ConfigError, match=r"^The model gives nothing, where"):
        predicted_labels({})


@pytest.mark.parametrize("classes", [1, 2, 150, 255, 256, 300])
def test_labels_are_the_first_of_the_best_classes(classes):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-20, 20, (classes, 3, 6000), generator=generator)  # many are equal
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        labels = predicted_labels({"sem_seg": scores.to(dtype)})
        assert (labels.numpy() == scores.numpy().argmax(0)).all()  # NumPy's is the first
    broken = predicted_labels({"sem_seg": torch.full((classes, 3, 4), float("nan"))})
    assert broken.min() >= 0 and broken.max() < classes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales": ()}, "scales must be numbers above 0"),
        ({"scales": (1.0, 0)}, "scales must be numbers above 0"),
        ({"scales": (float("inf"),)}, "scales must be numbers above 0"),
        ({"stride": 3}, "window is None"),
        ({"window": (32, 32), "stride": (16, 33)}, "leaves holes"),
        ({"window": 0}, "window must be 1 pixel or more"),
        ({"window": 9, "stride": (-1, 3)}, "stride must be 1 pixel or more"),
        ({"window": 9, "batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(ValueError, match=message):
        SegmenterInference(toy_segmenter(), **values)


def test_models_of_another_kind_are_named():
    class Own(SemanticSegmentor):
        def forward(self, batched_inputs):
            return []

    class Panoptic(nn.Module):
        def __init__(self):
            super().__init__()
            self.sem_seg_head = self.roi_heads = nn.Identity()

    own = toy_segmenter()
    own.__class__ = Own
    for model, segments in ((nn.Linear(1, 1), False), (Panoptic(), False), (own, True)):
        assert is_segmenter(model) is segments and not is_plain_segmenter(model)
        with pytest.raises(ConfigError, match=f"but the model is a {type(model).__name__}: set tr"):
            SegmenterInference(model)
    assert is_plain_segmenter(toy_segmenter()) and is_segmenter(toy_segmenter())


def test_it_is_in_the_mode_of_the_model():
    model = toy_segmenter().train()
    inference = SegmenterInference(model)
    assert inference.training and model.training
    with pytest.raises(RuntimeError, match="eval mode"):
        inference([{"image": picture(8, 8)}])
    assert not inference.eval().training and not model.training


def test_the_sizes_of_views():
    inference = SegmenterInference(toy_segmenter(), scales=(0.5, 1.0), flip=True)
    assert inference.view_sizes((31, 40)) == [(16, 20), (16, 20), (31, 40), (31, 40)]
