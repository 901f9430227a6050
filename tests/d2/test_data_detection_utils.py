"""Reading images of all kinds; annotations into Instances."""

import warnings

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from PIL import Image

from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.data.detection_utils import (
    SizeMismatchError,
    annotations_to_instances,
    check_image_size,
    filter_empty_instances,
    read_image,
    transform_instance_annotations,
)
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.structures import BitMasks, BoxMode, PolygonMasks

native_only = pytest.mark.skipif(USE_DETECTRON2, reason="native reads these files right")

RGB = np.zeros((6, 9, 3), dtype=np.uint8)
RGB[:3, :4] = (200, 30, 60)
RGB[3:, 4:] = (10, 220, 90)


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


def test_rgb_and_bgr(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png"), "RGB"), RGB)
    assert np.array_equal(read_image(str(tmp_path / "a.png"), "BGR"), RGB[:, :, ::-1])
    assert np.array_equal(read_image(str(tmp_path / "a.png")), RGB)
    grey = read_image(str(tmp_path / "a.png"), "L")
    assert grey.shape == (6, 9, 1) and grey.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_greyscale(tmp_path, mode):
    grey = np.where(RGB[:, :, 0] > 50, 255, 0).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    image = read_image(str(tmp_path / "a.png"), "RGB")
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(read_image(str(tmp_path / "a.png"), "L"), grey[:, :, None])


@native_only
@pytest.mark.parametrize("mode", ["RGB", "BGR", "L"])
def test_sixteen_bits(tmp_path, mode):
    values = np.linspace(0, 65535, 54).astype(np.uint16).reshape(6, 9)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(str(tmp_path / "a.png"), mode)
    assert image.dtype == np.uint8 and image.shape == (6, 9, 1 if mode == "L" else 3)
    for channel in range(image.shape[2]):
        assert np.array_equal(image[:, :, channel], values >> 8)


@native_only
@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255])])
def test_palette(tmp_path, transparency):
    palette = Image.fromarray(RGB).quantize(3)
    options = {} if transparency is None else {"transparency": transparency}
    palette.save(tmp_path / "a.png", **options)
    assert mode_of(tmp_path / "a.png") == "P"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Pillow's, about transparency
        assert np.array_equal(read_image(str(tmp_path / "a.png"), "RGB"), RGB)


def test_alpha_is_dropped(tmp_path):
    rgba = np.concatenate([RGB, np.full((6, 9, 1), 7, dtype=np.uint8)], axis=2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png"), "RGB"), RGB)


def test_cmyk(tmp_path):
    image = np.repeat(np.repeat(RGB, 8, axis=0), 8, axis=1)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert mode_of(tmp_path / "a.jpg") == "CMYK"
    read = read_image(str(tmp_path / "a.jpg"), "RGB")
    assert np.abs(read.astype(int) - image).mean() < 4


TURNED = {  # how a viewer shows, as an operation on the stored array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"a.{suffix}")
    image = np.repeat(np.repeat(RGB, 8, axis=0), 8, axis=1)
    Image.fromarray(image).save(path, exif=exif)
    with Image.open(path) as stored_image:
        stored = np.asarray(stored_image.convert("RGB"))
    assert np.array_equal(read_image(path, "RGB"), TURNED[orientation](stored))


@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_broken_exif_is_ignored(tmp_path):
    path = str(tmp_path / "a.jpg")
    Image.fromarray(RGB).save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read_image(path, "RGB").shape == RGB.shape


def test_check_image_size():
    record = {"file_name": "x.png"}
    check_image_size(record, RGB)
    assert (record["width"], record["height"]) == (9, 6)
    check_image_size(record, RGB)
    with pytest.raises(SizeMismatchError, match=r"x\.png"):
        check_image_size({"file_name": "x.png", "width": 6, "height": 9}, RGB)


def annotation(**more):
    return {
        "bbox": [1, 2, 4, 3],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 2,
        "iscrowd": 0,
        **more,
    }


def test_transform_box_and_polygons():
    record = annotation(segmentation=[[1, 2, 5, 2, 5, 5]])
    kept = [list(record["bbox"]), [list(record["segmentation"][0])]]
    moved = transform_instance_annotations(
        dict(record), [T.ResizeTransform(6, 9, 12, 27), T.HFlipTransform(27)], (12, 27)
    )
    assert np.allclose(moved["bbox"], [12, 4, 24, 10])
    assert moved["bbox_mode"] == BoxMode.XYXY_ABS
    assert np.allclose(moved["segmentation"][0], [24, 4, 12, 4, 12, 10])
    assert [record["bbox"], record["segmentation"]] == kept  # nothing inside was changed


def test_boxes_are_cut_to_the_image():
    moved = transform_instance_annotations(annotation(), T.CropTransform(2, 3, 2, 9), (9, 2))
    assert np.allclose(moved["bbox"], [0, 0, 2, 2])


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 cuts moved boxes of integers to integers")
def test_integer_boxes_are_not_rounded():
    moved = transform_instance_annotations(annotation(), T.ResizeTransform(6, 9, 3, 6), (3, 6))
    assert np.allclose(moved["bbox"], [1 * 6 / 9, 1, 5 * 6 / 9, 2.5])


def test_rle_becomes_a_bitmap():
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[2:5, 1:5] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    moved = transform_instance_annotations(
        annotation(segmentation=rle), T.HFlipTransform(9), (6, 9)
    )
    assert np.array_equal(moved["segmentation"], mask[:, ::-1])
    instances = annotations_to_instances([moved], (6, 9), "bitmask")
    assert np.array_equal(instances.gt_masks.tensor[0].numpy(), mask[:, ::-1] > 0)
    with pytest.raises(ValueError, match="polygon" if USE_DETECTRON2 else "'bitmask'"):
        annotations_to_instances([moved], (6, 9), "polygon")


def test_annotations_to_instances():
    square = [np.array([1.0, 2, 5, 2, 5, 5, 1, 5])]
    annos = [annotation(segmentation=square), annotation(segmentation=square, category_id=0)]
    instances = annotations_to_instances(annos, (6, 9))
    assert instances.gt_boxes.tensor.tolist() == [[1, 2, 5, 5]] * 2
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [2, 0] and instances.gt_classes.dtype == torch.int64
    assert isinstance(instances.gt_masks, PolygonMasks)
    masks = annotations_to_instances(annos, (6, 9), "bitmask").gt_masks
    assert isinstance(masks, BitMasks)
    expected = torch.zeros(6, 9, dtype=torch.bool)
    expected[2:5, 1:5] = True
    assert torch.equal(masks.tensor[0], expected)


def test_no_annotations_make_empty_instances():
    instances = annotations_to_instances([], (6, 9))
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert not annotations_to_instances([annotation()], (6, 9)).has("gt_masks")
    assert len(filter_empty_instances(instances)) == 0


def test_filter_empty_instances():
    square = [np.array([1.0, 2, 5, 2, 5, 5, 1, 5])]
    annos = [
        annotation(segmentation=square),
        annotation(segmentation=square, bbox=[3, 3, 0, 2], category_id=0),
        annotation(segmentation=[], category_id=1),
    ]
    instances = annotations_to_instances(annos, (6, 9))
    assert filter_empty_instances(instances).gt_classes.tolist() == [2]
    assert filter_empty_instances(instances, by_mask=False).gt_classes.tolist() == [2, 1]
    assert filter_empty_instances(instances, by_box=False).gt_classes.tolist() == [2, 0]
