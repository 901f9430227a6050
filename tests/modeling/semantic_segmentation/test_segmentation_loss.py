"""Cross-entropy with class weights, hard pixels and pixels to ignore, against plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from iwin_d2.modeling.semantic_segmentation import SegmentationLoss, balanced_weights

CLASSES, IGNORED = 4, 255


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, CLASSES, 6, 7, generator=generator) * 2
    targets = torch.randint(0, CLASSES, (2, 6, 7), generator=generator)
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = IGNORED
    return logits.requires_grad_(), targets


def pixels_of(logits, targets, ignored=IGNORED):
    """(probability of the pixel's own class, class) for each pixel that has one."""
    probabilities = logits.detach().double().softmax(1)
    return [
        (float(probabilities[b, label, y, x]), label)
        for (b, y, x), label in (
            ((b, y, x), int(targets[b, y, x]))
            for b in range(targets.shape[0])
            for y in range(targets.shape[1])
            for x in range(targets.shape[2])
        )
        if label != ignored
    ]


def weighted_mean(pixels, weights=None):
    weights = [1.0] * CLASSES if weights is None else weights
    total = sum(weights[label] for _, label in pixels)
    return sum(-weights[label] * math.log(p) for p, label in pixels) / total


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.0]])
@pytest.mark.parametrize("ignored", [IGNORED, -1, 2])
def test_the_mean_of_pixels_that_have_a_class(batch, weights, ignored):
    logits, targets = batch
    targets = torch.where(targets == IGNORED, ignored, targets)
    found = SegmentationLoss(class_weights=weights)(logits, targets, ignored)
    expected = weighted_mean(pixels_of(logits, targets, ignored), weights)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    theirs = F.cross_entropy(
        logits, targets, weights and torch.tensor(weights), ignore_index=ignored
    )
    torch.testing.assert_close(found, theirs)


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.1, 1.0]])
@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(0.3, None), (0.3, 1), (0.05, 20), (None, 10), (0.7, 1000), (None, 1000), (1.0, None)],
)
def test_hard_pixels(batch, weights, threshold, kept):
    """Those below the threshold, and at least so many an image, the hardest of the whole batch."""
    logits, targets = batch
    pixels = sorted(pixels_of(logits, targets))
    below = [pixel for pixel in pixels if threshold is not None and pixel[0] < threshold]
    at_least = pixels[: 2 * kept] if kept is not None else []
    expected = weighted_mean(max(below, at_least, key=len), weights)
    loss = SegmentationLoss(class_weights=weights, ohem_threshold=threshold, ohem_min_kept=kept)
    assert loss(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_easy_pixels_have_no_gradient(batch):
    logits, targets = batch
    SegmentationLoss(ohem_threshold=0.3)(logits, targets).backward()
    own = logits.detach().softmax(1).gather(1, targets.where(targets != IGNORED, 0)[:, None])[:, 0]
    hard = (own < 0.3) & (targets != IGNORED)
    assert 0 < hard.sum() < (targets != IGNORED).sum()
    assert torch.equal(logits.grad.abs().sum(1) > 0, hard)


OPTIONS = [
    {},
    {"class_weights": [1.0, 2.0, 3.0, 4.0]},
    {"ohem_threshold": 0.7},
    {"ohem_min_kept": 5},
    {"ohem_threshold": 0.7, "ohem_min_kept": 5, "class_weights": [0.0] * 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_batch_of_ignored_pixels_alone_changes_nothing(batch, options):
    logits, targets = batch
    loss = SegmentationLoss(**options)(logits, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_an_image_of_ignored_pixels_alone_stays_out_of_the_mean(batch):
    logits, targets = batch
    targets[1] = IGNORED
    loss = SegmentationLoss()
    torch.testing.assert_close(loss(logits, targets), loss(logits[:1], targets[:1]))
    loss(logits, targets).backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[0] != 0).any()


def test_classes_without_weight_alone(batch):
    logits, _ = batch
    loss = SegmentationLoss(class_weights=[0.0, 1.0, 1.0, 1.0])
    found = loss(logits, torch.zeros(2, 6, 7, dtype=torch.int64))
    found.backward()
    assert found.item() == 0 and (logits.grad == 0).all()


def test_half_precision_is_summed_in_float32(batch):
    logits, targets = batch
    found = SegmentationLoss()(logits.detach().to(torch.bfloat16), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, SegmentationLoss()(logits, targets), rtol=0.02, atol=0)


def test_weights_are_part_of_the_config_not_of_the_state():
    loss = SegmentationLoss(class_weights=[1, 2])
    assert loss.state_dict() == {} and loss.class_weights.tolist() == [1.0, 2.0]
    assert loss.to(torch.float64).class_weights.dtype == torch.float64
    loss.check_num_classes(2)
    with pytest.raises(ValueError, match="class_weights has 2 numbers for 150 classes"):
        loss.check_num_classes(150)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_weights": [1.0, -1.0]}, "class_weights must be numbers from 0 on"),
        ({"class_weights": [1.0, math.nan]}, "class_weights must be numbers from 0 on"),
        ({"ohem_threshold": 0.0}, "ohem_threshold must lie above 0 and up to 1, got 0"),
        ({"ohem_threshold": 1.5}, "ohem_threshold must lie above 0 and up to 1, got 1.5"),
        ({"ohem_min_kept": 0}, "ohem_min_kept must be at least 1 pixel, got 0"),
    ],
)
def test_settings_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        SegmentationLoss(**options)


def test_balanced_weights():
    assert balanced_weights([10, 20, 40]) == [2.0, 1.0, 0.5]
    assert balanced_weights([10, 0, 30]) == [2.0, 1.0, pytest.approx(2 / 3)]
    for counts in ([], [0, 0], [3, -1]):
        with pytest.raises(ValueError, match="pixels must be counts"):
            balanced_weights(counts)


def test_with_balanced_weights_every_class_counts_alike():
    targets = torch.tensor([[[0] * 6 + [1] * 3 + [2]]])
    logits = torch.zeros(1, 3, 1, 10, requires_grad=True)
    loss = SegmentationLoss(class_weights=balanced_weights([6, 3, 1]))
    loss(logits, targets).backward()
    own = logits.grad.gather(1, targets[:, None])[0, 0, 0]
    by_class = torch.zeros(3).index_add(0, targets.flatten(), own)
    torch.testing.assert_close(by_class, by_class[:1].expand(3))
