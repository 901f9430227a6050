"""Boxes, masks, instances and batches against loops and numbers computed by hand."""

import copy
import pickle

import numpy as np
import pytest
import torch

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    PolygonMasks,
    pairwise_iou,
    polygons_to_bitmask,
)


def random_boxes(n: int, size: float = 50) -> torch.Tensor:
    corner = torch.rand(n, 2) * size
    return torch.cat([corner, corner + torch.rand(n, 2) * size + 1], dim=1)


def rectangle(x0, y0, x1, y1) -> np.ndarray:
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=float)


flat_arrays = pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 wants a row for each box")


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        pytest.param(np.array, marks=flat_arrays),
        pytest.param(torch.tensor, marks=flat_arrays),
    ],
)
def test_box_mode_there_and_back(make):
    box = make([10.0, 20.0, 30.0, 50.0])
    corners = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(corners) is type(box)
    assert list(corners) == [10, 20, 40, 70]
    assert list(BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)) == [10, 20, 30, 50]
    assert list(box) == [10, 20, 30, 50], "the input must stay as it is"


@pytest.mark.parametrize("make", [torch.clone, torch.Tensor.numpy])
def test_box_mode_of_many_boxes(make):
    corners = random_boxes(5)
    boxes = make(corners.clone())
    sizes = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert type(sizes) is type(boxes) and sizes.dtype == boxes.dtype
    assert np.array_equal(sizes[:, :2], corners[:, :2])
    assert np.allclose(sizes[:, 2:] + boxes[:, :2], corners[:, 2:])
    back = BoxMode.convert(sizes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert np.allclose(back, corners)
    assert np.array_equal(boxes, corners), "the input must stay as it is"


def test_boxes_measure():
    boxes = Boxes([[0, 0, 10, 20], [5, 5, 5, 9], [-4, 2, 8, 40]])
    assert boxes.tensor.dtype == torch.float32
    assert boxes.area().tolist() == [200, 0, 456]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=10).tolist() == [False, False, True]
    assert boxes.inside_box((30, 12)).tolist() == [True, True, False]
    assert boxes.inside_box((30, 12), boundary_threshold=11).tolist() == [True, True, True]


def test_clip_and_scale_leave_the_source_alone():
    source = torch.tensor([[-4.0, 2, 8, 40]])
    boxes = Boxes(source.clone())
    boxes.clip((30, 6))
    assert boxes.tensor.tolist() == [[0, 2, 6, 30]]
    boxes.scale(2, 0.5)
    assert boxes.tensor.tolist() == [[0, 1, 12, 15]]
    with pytest.raises(AssertionError):
        Boxes(torch.tensor([[0, 0, float("nan"), 1]])).clip((5, 5))


def test_boxes_behave_like_a_sequence():
    boxes = Boxes(random_boxes(4))
    assert len(boxes[1]) == 1
    assert torch.equal(boxes[1].tensor[0], boxes.tensor[1])
    assert torch.equal(boxes[torch.tensor([3, 0])].tensor, boxes.tensor[[3, 0]])
    assert len(boxes[torch.tensor([True, False, True, False])]) == 2
    assert torch.equal(Boxes.cat([boxes[:1], boxes[1:]]).tensor, boxes.tensor)
    assert torch.equal(torch.stack(list(boxes)), boxes.tensor)
    assert Boxes(torch.empty(0)).tensor.shape == (0, 4)
    assert len(Boxes.cat([])) == 0
    assert boxes.to("cpu").device == torch.device("cpu")
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(3, 5))


def test_pairwise_iou_against_a_loop():
    torch.manual_seed(0)
    a, b = random_boxes(7), random_boxes(5)
    b[0] = a[0]
    b[1, 2:] = b[1, :2]  # an empty box
    iou = pairwise_iou(Boxes(a), Boxes(b))
    for i, (ax0, ay0, ax1, ay1) in enumerate(a.tolist()):
        for j, (bx0, by0, bx1, by1) in enumerate(b.tolist()):
            width = max(0, min(ax1, bx1) - max(ax0, bx0))
            height = max(0, min(ay1, by1) - max(ay0, by0))
            union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - width * height
            assert iou[i, j].item() == pytest.approx(width * height / union, abs=1e-5)
    assert iou[0, 0].item() == pytest.approx(1)


def test_iou_of_empty_boxes_is_zero():
    empty = Boxes([[3, 3, 3, 3]])
    assert pairwise_iou(empty, empty).tolist() == [[0]]
    assert pairwise_iou(Boxes([]), empty).shape == (0, 1)


def make_instances(n: int) -> Instances:
    instances = Instances((40, 60))
    instances.gt_boxes = Boxes(random_boxes(n))
    instances.gt_classes = torch.arange(n)
    instances.gt_masks = PolygonMasks([[rectangle(i, i, i + 5, i + 5)] for i in range(n)])
    return instances


def test_instances_fields():
    instances = make_instances(3)
    assert len(instances) == 3
    assert instances.image_size == (40, 60)
    assert instances.has("gt_boxes")
    assert not instances.has("scores")
    with pytest.raises(AttributeError, match="scores"):
        _ = instances.scores
    with pytest.raises(AssertionError):
        instances.scores = torch.zeros(4)
    instances.remove("gt_masks")
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}
    assert instances.get("gt_classes") is instances.gt_classes
    with pytest.raises(NotImplementedError):
        len(Instances((1, 1)))
    assert "num_instances=3" in str(instances)


def test_instances_select_and_join():
    instances = make_instances(4)
    assert instances[-1].gt_classes.tolist() == [3]
    assert instances[1:3].gt_classes.tolist() == [1, 2]
    chosen = instances[instances.gt_classes != 2]
    assert chosen.gt_classes.tolist() == [0, 1, 3]
    assert len(chosen.gt_masks) == len(chosen.gt_boxes) == 3
    joined = Instances.cat([chosen, instances[torch.tensor([2])]])
    assert joined.gt_classes.tolist() == [0, 1, 3, 2]
    assert joined.gt_masks.polygons[3][0][0] == 2
    with pytest.raises(IndexError):
        instances[4]


def test_instances_survive_copying_and_pickling():
    instances = make_instances(2)
    for copied in (copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert copied.image_size == (40, 60)
        assert torch.equal(copied.gt_boxes.tensor, instances.gt_boxes.tensor)
    moved = instances.to("cpu")
    assert moved is not instances
    assert len(moved.gt_masks) == 2


def test_image_list_pads_right_and_bottom():
    images = [torch.rand(3, 5, 9), torch.rand(3, 8, 4)]
    batch = ImageList.from_tensors(images, size_divisibility=4, pad_value=7.0)
    assert batch.tensor.shape == (2, 3, 8, 12)
    assert [tuple(size) for size in batch.image_sizes] == [(5, 9), (8, 4)]
    for i, image in enumerate(images):
        assert torch.equal(batch[i], image)
    assert (batch.tensor[0, :, 5:] == 7).all()
    assert (batch.tensor[0, :, :, 9:] == 7).all()
    single = ImageList.from_tensors(images[:1], size_divisibility=4)
    assert single.tensor.shape == (1, 3, 8, 12)
    assert torch.equal(single[0], images[0])


def test_image_list_padding_constraints():
    constraints = {"square_size": 16, "size_divisibility": 0}
    batch = ImageList.from_tensors(
        [torch.rand(1, 5, 9), torch.rand(1, 8, 4)], padding_constraints=constraints
    )
    assert batch.tensor.shape == (2, 1, 16, 16)


def test_rasterised_rectangle_is_exact():
    mask = polygons_to_bitmask([rectangle(2, 1, 6, 4)], 8, 10)
    expected = np.zeros((8, 10), dtype=bool)
    expected[1:4, 2:6] = True
    assert mask.dtype == bool
    assert np.array_equal(mask, expected)
    assert not polygons_to_bitmask([], 3, 3).any()


def test_bit_masks_boxes_against_a_loop():
    torch.manual_seed(0)
    tensor = torch.rand(6, 9, 11) > 0.95
    tensor[2] = False
    masks = BitMasks(tensor)
    boxes = masks.get_bounding_boxes().tensor
    for mask, box in zip(tensor, boxes):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        expected = [0, 0, 0, 0]
        if len(rows):
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert box.tolist() == [float(v) for v in expected]
    assert masks.nonempty().tolist() == tensor.flatten(1).any(1).tolist()


def test_bit_masks_behave_like_a_sequence():
    masks = BitMasks(torch.rand(3, 4, 5) > 0.5)
    assert len(masks[0]) == 1
    assert torch.equal(masks[torch.tensor([2, 0])].tensor, masks.tensor[[2, 0]])
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, masks.tensor)
    assert tuple(masks.image_size) == (4, 5)


def test_crop_of_a_bit_mask_at_its_own_resolution_is_a_slice():
    torch.manual_seed(0)
    masks = BitMasks(torch.rand(2, 20, 20) > 0.5)
    crop = masks.crop_and_resize(torch.tensor([[3.0, 5, 11, 13], [0, 0, 8, 8]]), 8)
    assert crop.dtype == torch.bool
    assert torch.equal(crop[0], masks.tensor[0, 5:13, 3:11])
    assert torch.equal(crop[1], masks.tensor[1, :8, :8])


def test_crops_of_polygons_and_of_bit_masks_agree():
    # Along the pixel grid both are exact, so they must be equal, also where polygons overlap.
    polygons = PolygonMasks(
        [
            [rectangle(4, 4, 20, 12), rectangle(12, 8, 28, 24)],
            [rectangle(0, 0, 8, 32)],
            [],
        ]
    )
    bitmaps = BitMasks.from_polygon_masks(polygons, 32, 32)
    boxes = torch.tensor([[0.0, 0, 32, 32], [4, 4, 20, 20], [0, 0, 16, 16]])
    from_polygons = polygons.crop_and_resize(boxes, 8)
    assert from_polygons.shape == (3, 8, 8)
    assert from_polygons.dtype == torch.bool
    assert torch.equal(from_polygons, bitmaps.crop_and_resize(boxes, 8))
    assert not from_polygons[2].any()
    around = polygons.get_bounding_boxes()
    assert torch.equal(around.tensor[:2], bitmaps.get_bounding_boxes().tensor[:2])
    assert around.nonempty().tolist() == [True, True, False]


def test_crops_of_polygons_round_as_float32():
    # Outlines along the edges of their boxes, where the last bit of the scale decides on pixels.
    rng = np.random.default_rng(0)
    outlines = [rng.integers(0, 100, (7, 2)) / 2 for _ in range(200)]
    corners = [np.concatenate([o.min(axis=0), o.max(axis=0)]).astype(np.float32) for o in outlines]
    crops = PolygonMasks([[o.ravel()] for o in outlines]).crop_and_resize(
        torch.from_numpy(np.stack(corners)), 28
    )
    for crop, outline, corner in zip(crops, outlines, corners):
        scale = np.float32(28) / (corner[2:] - corner[:2])
        expected = polygons_to_bitmask([((outline - corner[:2]) * scale).ravel()], 28, 28)
        assert np.array_equal(crop.numpy(), expected)


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 puts infinite boxes around no polygons")
def test_the_box_around_no_polygons_is_finite():
    assert PolygonMasks([[]]).get_bounding_boxes().tensor.tolist() == [[0, 0, 0, 0]]


def test_crop_of_a_polygon_by_a_box_without_extent():
    polygons = PolygonMasks([[rectangle(0, 0, 4, 4)]])
    assert polygons.crop_and_resize(torch.tensor([[1.0, 1, 1, 1]]), 4).shape == (1, 4, 4)
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 4).shape == (0, 4, 4)


def counts(masks):
    """The number of polygons of each instance."""
    return [len(instance) for instance in masks]


def test_polygon_masks_select_and_join():
    masks = PolygonMasks(
        [
            [rectangle(0, 0, 4, 3), np.array([0.0, 0, 4, 0, 0, 4])],
            [],
            [rectangle(1, 1, 2, 2)],
        ]
    )
    assert masks.nonempty().tolist() == [True, False, True]
    assert len(masks[0]) == 1
    assert counts(masks[torch.tensor([2, 0])]) == [1, 2]
    assert counts(masks[masks.nonempty()]) == [2, 1]
    assert counts(masks[1:]) == [0, 1]
    assert len(masks[torch.zeros(0, dtype=torch.int64)]) == 0
    assert counts(PolygonMasks.cat([masks, masks])) == [2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("polygons", [np.zeros(6), [np.zeros(6)], [[np.zeros(4)]], [[np.zeros(7)]]])
def test_polygons_that_are_none(polygons):
    with pytest.raises(ValueError):
        PolygonMasks(polygons)
