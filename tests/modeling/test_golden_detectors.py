"""Published detectors, loaded by load_pretrained, give what the reference implementation gave."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask
from shrunken import shrunken_cascade, shrunken_mask_rcnn
from torch import nn

from iwin_d2.checkpoint import convert_checkpoint, load_pretrained
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.modeling import detector_postprocess
from iwin_d2.d2.structures import Boxes, ImageList, Instances

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DETECTORS = {"cascade_mask_rcnn": shrunken_cascade, "mask_rcnn": shrunken_mask_rcnn}

# The recorded boxes reach 420 pixels, the scores 1.
BOX, SCORE, MASK_IOU = 1e-3, 2e-5, 0.998


@dataclass
class Case:
    """A golden file, the model with its weights, and the model's maps of its image."""

    expected: dict
    model: nn.Module
    features: dict

    @property
    def images(self):
        return ImageList(self.expected["image"].float(), [self.expected["image_size"]])


@pytest.fixture(scope="module", params=DETECTORS)
def case(request):
    file = GOLDEN / f"{request.param}.pt"
    golden = torch.load(file, weights_only=True)
    model = instantiate(DETECTORS[request.param](golden["num_classes"])).eval()
    report = load_pretrained(model, file)  # float16, as recorded, into float32
    assert len(report.loaded) == len(golden["state_dict"])
    assert not report.missing and not report.unexpected
    (expected,) = golden["cases"]
    with torch.no_grad():
        features = model.backbone(expected["image"].float())
    return Case(expected, model, features)


def test_feature_maps(case):
    for expected, actual in zip(case.expected["fpn"], case.features.values(), strict=True):
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("name", DETECTORS)
def test_converted_weights_are_these(name, tmp_path):
    file, converted = GOLDEN / f"{name}.pt", tmp_path / "converted.pth"
    convert_checkpoint(file, converted)
    models = [instantiate(DETECTORS[name]()) for _ in range(2)]
    for model, source in zip(models, (file, converted)):
        load_pretrained(model, source)
    one, other = (model.state_dict() for model in models)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def find_proposals(case):
    with torch.no_grad():
        return case.model.proposal_generator(case.images, case.features, None)[0]


def test_proposals(case):
    """All of them, but for those of zero area, which the reference keeps."""
    (proposals,) = find_proposals(case)
    *boxes, scores = case.expected["proposals"].split(1, dim=1)
    boxes = torch.cat(boxes, dim=1)
    kept = Boxes(boxes).nonempty()
    assert 0 < (~kept).sum() < 20
    distance = torch.cdist(boxes[kept], proposals.proposal_boxes.tensor, p=float("inf"))
    nearest, index = distance.min(1)
    assert nearest.max() < BOX
    found = proposals.objectness_logits.sigmoid()[index]
    assert (found - scores[kept, 0]).abs().max() < SCORE
    assert len(index.unique()) == len(index)


def count_matches(case, proposals):
    """How many of the recorded detections are found, each one once, with their masks."""
    with torch.no_grad():
        detections, _ = case.model.roi_heads(case.images, case.features, proposals)
    found = detector_postprocess(detections[0], *case.expected["original_size"])
    masks = torch.from_numpy(coco_mask.decode(case.expected["masks"])).bool().permute(2, 0, 1)
    taken = torch.zeros(len(found), dtype=torch.bool)
    for box, score, label, mask in zip(
        *(case.expected[key] for key in ("boxes", "scores", "labels")), masks
    ):
        fits = (found.pred_boxes.tensor - box).abs().amax(1) < BOX
        fits &= (found.pred_classes == label) & ((found.scores - score).abs() < SCORE) & ~taken
        for index in fits.nonzero()[:1, 0]:
            union = (found.pred_masks[index] | mask).sum()
            shared = (found.pred_masks[index] & mask).sum()
            taken[index] = bool(union == 0 or shared / union >= MASK_IOU)
    return int(taken.sum())


def test_detections_in_the_recorded_proposals(case):
    boxes, scores = case.expected["proposals"].split([4, 1], dim=1)
    proposals = Instances(
        case.expected["image_size"],
        proposal_boxes=Boxes(boxes.clone()),
        objectness_logits=scores[:, 0].logit(),
    )
    assert count_matches(case, [proposals]) == len(case.expected["boxes"]) == 100


def test_detections(case):
    """Three come from proposals of zero area, and make room for others without these."""
    assert count_matches(case, find_proposals(case)) >= 97
