"""Test-time augmentation: of detectors that see what there is, and of the published ones."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from lively import CONFIGS, blurred_noise, lively_detector
from torch import nn

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.layers import ROIAlign, ShapeSpec
from iwin_d2.d2.modeling import Backbone, GeneralizedRCNN, ROIHeads
from iwin_d2.d2.structures import Boxes, Instances, pairwise_iou
from iwin_d2.errors import ConfigError
from iwin_d2.modeling.tta import SCALES, DetectorWithTTA, View

SOME_SCALES = (0.5, 0.8, 1.0, 1.7)


# ---- views --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("scale", [0.37, 1.0, 2.5])
@pytest.mark.parametrize("size", [(61, 47), (40, 100)])
def test_boxes_go_where_the_pixels_go(size, scale, flipped):
    view = View(scale, flipped)
    image = torch.zeros(1, *size)
    image[:, 10:30, 5:25] = 100
    seen = view.of_image(image)
    assert tuple(seen.shape[1:]) == view.size_of(size) == tuple(round(n * scale) for n in size)
    ys, xs = (seen[0] > 50).nonzero(as_tuple=True)
    box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
    truth = torch.tensor([[5.0, 10.0, 25.0, 30.0]])
    assert (view.of_boxes(truth, size) - box).abs().max() <= 1.0
    back = view.boxes_back(view.of_boxes(truth, size), size)
    torch.testing.assert_close(back, truth)


def test_an_image_in_its_own_size_is_the_very_one():
    image = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8)
    assert View(1.0, False).of_image(image) is image
    assert torch.equal(View(1.0, True).of_image(image), image.flip(-1))
    assert View(1.004, False).of_image(image) is image  # no pixel more


def test_no_view_is_without_pixels():
    assert View(0.1, True).of_image(torch.zeros(3, 2, 90)).shape == (3, 1, 9)


# ---- a detector that sees what there is ---------------------------------------------------------


class Pixels(Backbone):
    """The image itself as its only map."""

    def __init__(self):
        super().__init__()
        self.maps = []  # those that somebody still holds
        self.most_held = 0
        self.largest = 0

    def forward(self, x):
        self.maps = [ref for ref in self.maps if ref() is not None]
        features = x.clone()
        self.maps.append(weakref.ref(features))
        self.most_held = max(self.most_held, len(self.maps))
        self.largest = max(self.largest, x.shape[-2] * x.shape[-1])
        return {"pixels": features}

    def output_shape(self):
        return {"pixels": ShapeSpec(channels=3, stride=1)}


class Anywhere(nn.Module):
    """Proposes the whole image."""

    def forward(self, images, features, gt_instances=None):
        found = []
        for height, width in images.image_sizes:
            boxes = Boxes(torch.tensor([[0.0, 0.0, width, height]]))
            found.append(
                Instances((height, width), proposal_boxes=boxes, objectness_logits=torch.ones(1))
            )
        return found, {}


class Thresholds(nn.Module):
    test_nms_thresh = 0.5
    test_topk_per_image = 100


class BrightHeads(ROIHeads):
    """One object a channel: a box around its bright pixels, of the class of the channel."""

    def __init__(self, mask_on=True):
        nn.Module.__init__(self)
        self.box_predictor = Thresholds()
        self.mask_on = mask_on
        self.align = ROIAlign((56, 56), 1.0, 0, True)

    def forward(self, images, features, proposals, targets=None):
        found = []
        for pixels, (height, width) in zip(features["pixels"], images.image_sizes):
            boxes, classes = [], []
            for channel, values in enumerate(pixels[:, :height, :width]):
                ys, xs = (values > 0.5).nonzero(as_tuple=True)
                if len(ys):
                    boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                    classes.append(channel)
            scores = torch.linspace(0.9, 0.8, len(boxes))
            # The more pixels, the surer; and the unflipped ones a little more.
            scores = scores - 1 / (height * width) - 1e-4 * (pixels[:, 0, 0] > 0.5).any()
            instances = Instances((height, width))
            instances.pred_boxes = Boxes(torch.tensor(boxes).float().reshape(-1, 4))
            instances.scores, instances.pred_classes = scores, torch.tensor(classes).long()
            found.append(instances)
        return self.forward_with_given_boxes(features, found), {}

    def forward_with_given_boxes(self, features, instances):
        if self.mask_on:
            for pixels, one in zip(features["pixels"], instances):
                rois = F.pad(one.pred_boxes.tensor, (1, 0))
                masks = self.align(pixels[None], rois)
                index = torch.arange(len(one))
                one.pred_masks = masks[index, one.pred_classes][:, None].clamp(0, 1)
        return instances


def bright(mask_on=True):
    model = GeneralizedRCNN(
        backbone=Pixels(),
        proposal_generator=Anywhere(),
        roi_heads=BrightHeads(mask_on),
        pixel_mean=[0.0] * 3,
        pixel_std=[255.0] * 3,
        input_format="RGB",
    )
    return model.eval()


def planted(size=(80, 120)):
    """An image with an L in the first channel and a bar in the third, neither symmetrical."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[0, 20:60, 10:20] = image[0, 50:60, 10:50] = 255
    image[2, 8:16, 70:110] = 255
    return image


TRUE_BOXES = torch.tensor([[10.0, 20, 50, 60], [70, 8, 110, 16]])


@torch.no_grad()
def detect(model, images, **settings):
    items = [image if isinstance(image, dict) else {"image": image} for image in images]
    return [x["instances"] for x in DetectorWithTTA(model, **settings)(items)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5,), (2.0,), SOME_SCALES, SCALES])
def test_planted_objects_are_found_where_they_are(scales, flip):
    image = planted()
    (found,) = detect(bright(), [image], scales=scales, flip=flip)
    assert found.pred_classes.tolist() == [0, 2]  # once each, though seen in every view
    assert (found.pred_boxes.tensor - TRUE_BOXES).abs().max() <= max(1 / min(scales), 1)
    truth = image[[0, 2]] > 0
    union = (found.pred_masks | truth).flatten(1).sum(1)
    assert ((found.pred_masks & truth).flatten(1).sum(1) / union).min() > 0.85


def test_detections_are_given_in_the_size_that_is_asked_for():
    (found,) = detect(bright(), [{"image": planted(), "height": 160, "width": 60}])
    assert found.image_size == (160, 60) and found.pred_masks.shape == (2, 160, 60)
    expected = TRUE_BOXES * torch.tensor([0.5, 2.0, 0.5, 2.0])
    assert (found.pred_boxes.tensor - expected).abs().max() <= 2
    mask = found.pred_masks[0].float()
    assert mask[100:120, 5:25].mean() > 0.9 > 0.1 > mask[40:95, 12:25].mean()  # the L's foot


def test_the_surest_of_the_views_stays():
    """The best score decides whose box it is; here that of the largest view."""
    (found,) = detect(bright(), [planted()], scales=(0.5, 1.0, 2.0))
    (alone,) = detect(bright(), [planted()], scales=(2.0,))
    torch.testing.assert_close(found.pred_boxes.tensor, alone.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, alone.scores)


def test_masks_are_the_mean_of_the_views(monkeypatch):
    """Each view's mask, turned back, counts alike."""
    model = bright()
    seen = []

    def masks(self, features, instances):
        for one in instances:
            ramp = torch.linspace(0, 1, 4).expand(len(one), 1, 4, 4) * one.image_size[1] / 120
            one.pred_masks = ramp
            seen.append(ramp)
        return instances

    monkeypatch.setattr(BrightHeads, "forward_with_given_boxes", masks)
    augmented = DetectorWithTTA(model, scales=(0.5, 1.0), flip=True)
    with torch.no_grad():
        items = [{"image": planted()}]
        detections = augmented._detect_boxes(items)
        seen.clear()
        augmented._add_masks(detections, items)
    assert len(seen) == 4
    expected = (seen[0] + seen[1].flip(-1) + seen[2] + seen[3].flip(-1)) / 4
    torch.testing.assert_close(detections[0].pred_masks, expected)
    torch.testing.assert_close(expected, torch.full((2, 1, 4, 4), 0.375))  # of 0.5 and 1.0 as wide


def test_batches_give_what_their_images_do():
    images = [planted(), torch.zeros(3, 80, 120, dtype=torch.uint8), planted().flip(-2)]
    together = detect(bright(), images, scales=SOME_SCALES)
    for image, found in zip(images, together, strict=True):
        (alone,) = detect(bright(), [image], scales=SOME_SCALES)
        torch.testing.assert_close(found.pred_boxes.tensor, alone.pred_boxes.tensor)
        torch.testing.assert_close(found.scores, alone.scores)
        assert torch.equal(found.pred_masks, alone.pred_masks)
    assert [len(found) for found in together] == [2, 0, 2]


@pytest.mark.parametrize("mask_on", [False, True])
def test_an_image_without_detections(mask_on):
    model = bright(mask_on)
    for size in ((40, 60), (3, 5), (1, 1)):
        (found,) = detect(model, [torch.zeros(3, *size)], scales=SOME_SCALES)
        assert len(found) == 0 and found.image_size == size
        assert found.has("pred_masks") is mask_on
        if mask_on:
            assert found.pred_masks.shape == (0, *size)


def test_small_images():
    image = torch.zeros(3, 4, 6, dtype=torch.uint8)
    image[1, 1:3, 1:5] = 255
    (found,) = detect(bright(), [image], scales=(1.0, 1.7, 3.0))
    assert found.pred_classes.tolist() == [1]
    assert (found.pred_boxes.tensor - torch.tensor([[1.0, 1, 5, 3]])).abs().max() <= 1


def test_boxes_alone():
    (found,) = detect(bright(mask_on=False), [planted()], scales=SOME_SCALES)
    assert len(found) == 2 and not found.has("pred_masks")


def test_memory_is_that_of_the_largest_view():
    model = bright()
    detect(model, [planted()], scales=SCALES)
    assert model.backbone.most_held == 1  # no view's maps while another's are made
    assert model.backbone.largest == 120 * 180


def test_no_more_detections_than_the_detector_gives():
    model = bright()
    model.roi_heads.box_predictor.test_topk_per_image = 1
    (found,) = detect(model, [planted()], scales=SOME_SCALES)
    assert found.pred_classes.tolist() == [0]
    model.roi_heads.box_predictor.test_topk_per_image = -1
    assert len(detect(model, [planted()], scales=SOME_SCALES)[0]) == 2


def test_the_detectors_own_threshold_unites():
    """Of views whose boxes agree less than it asks for, each keeps its own."""
    model = bright(mask_on=False)
    model.roi_heads.box_predictor.test_nms_thresh = 1.0
    assert len(detect(model, [planted()], scales=(0.5, 1.0), flip=True)[0]) == 8


def test_the_heads_are_left_as_they_were(monkeypatch):
    model = bright()

    def fail(*args):
        raise RuntimeError("no")

    monkeypatch.setattr(BrightHeads, "forward", fail)
    with pytest.raises(RuntimeError, match="no"):
        detect(model, [planted()])
    assert model.roi_heads.mask_on


# ---- what it is not for -------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (-1.0,), (float("inf"),), (float("nan"),)])
def test_scales_that_make_no_sense(scales):
    with pytest.raises(ValueError, match="scales must be numbers above 0"):
        DetectorWithTTA(bright(), scales=scales)


class Other(GeneralizedRCNN):
    """Gives more than detections."""

    def inference(self, *args, **kwargs):
        return []


def test_other_models_are_named():
    for model, name in ((nn.Linear(1, 1), "Linear"), (bright(), "Other with BrightHeads")):
        if isinstance(model, GeneralizedRCNN):
            model.__class__ = Other
        with pytest.raises(ConfigError, match=f"the model is a {name}: set train.test_time"):
            DetectorWithTTA(model)
    model = bright()
    model.roi_heads.keypoint_on = True
    with pytest.raises(ConfigError, match="GeneralizedRCNN with BrightHeads"):
        DetectorWithTTA(model)


@pytest.mark.skipif(not USE_DETECTRON2, reason="native has no other detectors than two-stage ones")
@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("COCO-Detection/retinanet_R_50_FPN_1x.py", "RetinaNet"),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py", "PanopticFPN with StandardROIHeads"),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py", "GeneralizedRCNN with StandardROIHeads"),
    ],
)
def test_other_detectors_of_detectron2_are_named(config, name):
    from detectron2 import model_zoo

    with torch.device("meta"):
        model = instantiate(model_zoo.get_config(config).model)
    with pytest.raises(ConfigError, match=f"the model is a {name}: set train.test_time"):
        DetectorWithTTA(model)


def test_it_does_not_train():
    model = bright().train()
    augmented = DetectorWithTTA(model)
    assert augmented.training
    with pytest.raises(RuntimeError, match="eval mode"):
        augmented([{"image": planted()}])


# ---- the published detectors --------------------------------------------------------------------


@pytest.fixture(scope="module", params=CONFIGS)
def detector(request):
    return lively_detector(request.param)


def items():
    """Two images of different sizes, one of them to be given in another size."""
    return [
        {"image": blurred_noise(96, 128), "height": 120, "width": 160},
        {"image": blurred_noise(80, 100, seed=1)},
    ]


@torch.no_grad()
def test_one_scale_without_flip_is_plain_inference(detector):
    expected = detector(items())
    found = DetectorWithTTA(detector, scales=[1.0], flip=False)(items())
    for ours, plain in zip(found, expected, strict=True):
        ours, plain = ours["instances"], plain["instances"]
        assert len(plain) > 3 and ours.image_size == plain.image_size
        assert ours.get_fields().keys() == plain.get_fields().keys()
        torch.testing.assert_close(ours.pred_boxes.tensor, plain.pred_boxes.tensor)
        torch.testing.assert_close(ours.scores, plain.scores)
        assert torch.equal(ours.pred_classes, plain.pred_classes)
        if plain.has("pred_masks"):
            assert ours.pred_masks.shape == plain.pred_masks.shape
            assert (ours.pred_masks != plain.pred_masks).float().mean() < 1e-4


@torch.no_grad()
def test_of_all_views_the_best_boxes_are_united(detector):
    """Against the detector run on each view by itself, as anybody could run it."""
    scales = (0.75, 1.0, 1.5)
    (item, _) = items()
    (found,) = DetectorWithTTA(detector, scales=scales)([item])
    found = found["instances"]
    height, width = item["image"].shape[1:]
    boxes, scores, classes = [], [], []
    for scale in scales:
        size = (round(height * scale), round(width * scale))
        resized = item["image"].float()[None]
        if scale != 1:
            resized = F.interpolate(resized, size, mode="bilinear", antialias=True)
        for flipped in (False, True):
            image = resized[0].flip(-1) if flipped else resized[0]
            # Given in the size of the item, already.
            (plain,) = detector([{"image": image, "height": 120, "width": 160}])
            plain = plain["instances"]
            corners = plain.pred_boxes.tensor
            if flipped:
                corners = torch.stack(
                    [160 - corners[:, 2], corners[:, 1], 160 - corners[:, 0], corners[:, 3]], 1
                )
            boxes.append(corners)
            scores.append(plain.scores)
            classes.append(plain.pred_classes)
    boxes, scores, classes = torch.cat(boxes), torch.cat(scores), torch.cat(classes)
    kept = []
    for index in scores.argsort(descending=True).tolist():  # suppression by its definition
        rivals = [k for k in kept if classes[k] == classes[index]]
        ious = pairwise_iou(Boxes(boxes[[index]]), Boxes(boxes[rivals])) if rivals else None
        if ious is None or ious.max() <= 0.5:
            kept.append(index)
    kept = kept[:30]
    assert len(found) == len(kept) > 3
    torch.testing.assert_close(found.scores, scores[kept], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.pred_boxes.tensor, boxes[kept], rtol=1e-3, atol=0.05)
    assert torch.equal(found.pred_classes, classes[kept])


@torch.no_grad()
def test_masks_of_all_views_are_averaged(detector):
    """Against the heads asked for the masks of the same boxes, view by view."""
    if not detector.roi_heads.mask_on:
        pytest.skip("a detector of boxes alone")
    augmented = DetectorWithTTA(detector, scales=(1.0, 1.5))
    given = items()[:1]
    (found,) = augmented._detect_boxes(given)
    boxes, size = found.pred_boxes.tensor.clone(), found.image_size
    augmented._add_masks([found], given)
    total = 0
    for view in augmented.views:
        item = {"image": view.of_image(given[0]["image"])}
        features = detector.backbone(detector.preprocess_image([item]).tensor)
        seen = Boxes(view.of_boxes(boxes, size))
        maps = [features[name] for name in detector.roi_heads.mask_in_features]
        pooled = detector.roi_heads.mask_pooler(maps, [seen])
        heads = detector.roi_heads.mask_head
        heads = heads if isinstance(heads, nn.ModuleList) else [heads]
        masks = torch.stack([head.layers(pooled).sigmoid() for head in heads]).mean(0)
        masks = masks[torch.arange(len(found)), found.pred_classes]
        total = total + (masks.flip(-1) if view.flipped else masks)
    torch.testing.assert_close(found.pred_masks[:, 0], total / 4)
    assert (masks - total / 4).abs().max() > 1e-4  # the views do differ


@torch.no_grad()
def test_mixed_precision(detector):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found, _) = DetectorWithTTA(detector, scales=(0.75, 1.0))(items())
    found = found["instances"]
    assert len(found) > 0 and torch.isfinite(found.pred_boxes.tensor).all()
    assert found.has("pred_masks") is detector.roi_heads.mask_on


@pytest.mark.skipif(not USE_DETECTRON2, reason="compares with Detectron2's own")
@torch.no_grad()
def test_detectron2s_own_gives_the_same(detector):
    """In one size, flipped and not: there Detectron2 resizes nothing, either."""
    from detectron2.config import get_cfg
    from detectron2.modeling import GeneralizedRCNNWithTTA

    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    cfg.MODEL.MASK_ON = detector.roi_heads.mask_on
    cfg.TEST.DETECTIONS_PER_IMAGE = 30
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (96,), True
    item = {"image": blurred_noise(96, 128), "height": 96, "width": 128}
    (theirs,) = GeneralizedRCNNWithTTA(cfg, detector)([item])
    (ours,) = DetectorWithTTA(detector, scales=[1.0], flip=True)([item])
    theirs, ours = theirs["instances"], ours["instances"]
    assert len(ours) == len(theirs) > 3
    torch.testing.assert_close(ours.scores, theirs.scores)
    torch.testing.assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
    assert torch.equal(ours.pred_classes, theirs.pred_classes)
    if detector.roi_heads.mask_on:
        assert (ours.pred_masks != theirs.pred_masks).float().mean() < 1e-4
