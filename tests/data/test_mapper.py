"""The detection mapper: what it returns, and how it says which image is bad."""

import numpy as np
import pytest
from PIL import Image

from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.structures import BoxMode
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.errors import AugmentationError, DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def record(path, **change) -> dict:
    return {
        "file_name": str(path),
        "image_id": 5,
        "width": 30,
        "height": 20,
        "annotations": [
            {
                "bbox": [2, 3, 10, 8],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]],
            }
        ],
        **change,
    }


def mapper(augmentations=(), **change) -> DetectionMapper:
    arguments = {
        "is_train": True,
        "augmentations": list(augmentations),
        "image_format": "RGB",
        "use_instance_mask": True,
        **change,
    }
    return DetectionMapper(**arguments)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_a_good_record_is_mapped(image):
    mapped = mapper([T.RandomFlip(prob=1.0)])(record(image))
    assert np.array_equal(mapped["image"].numpy().transpose(1, 2, 0), PIXELS[:, ::-1])
    instances = mapped["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[18, 3, 28, 11]]
    assert instances.gt_classes.tolist() == [1]
    assert instances.gt_masks.get_bounding_boxes().tensor.tolist() == [[18, 3, 28, 11]]


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert mapper()(record(path))["image"].shape == (3, 20, 30)


def test_a_turned_image_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.rot90(PIXELS)).save(path, exif=exif)  # turned the other way in the file
    mapped = mapper()(record(path))
    assert np.array_equal(mapped["image"].numpy().transpose(1, 2, 0), PIXELS)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animated_image_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (30, 20), (red, 0, 0)) for red in (0, 100, 200)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert mapper()(record(path))["image"].max() == 0


def missing(path):
    path.unlink()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-400])


def text(path):
    path.write_text("not an image")


def smaller(path):
    Image.fromarray(PIXELS[:10]).save(path)


def swapped(path):
    Image.fromarray(PIXELS.transpose(1, 0, 2).copy()).save(path)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, exif=exif)


def empty(path):
    path.write_bytes(b"")


def deep(path):
    """12 bits in 16, which Detectron2 would clip to white and native would take for black."""
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 16).save(path)


def floating(path):
    Image.fromarray(PIXELS[:, :, 0].astype(np.float32)).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (missing, "does not exist"),
        (empty, r"is empty \(0 bytes\)"),
        (deep, r"of 16 or 32 bits a channel \(Pillow's mode I;16\), .* convert it to 8 bits"),
        (floating, "of 16 or 32 bits a channel"),
        (truncated, "truncated or damaged"),
        (text, "not an image file"),
        (smaller, "is 30x10 pixels, but the json says 30x20"),
        (swapped, "width and height swapped"),
        (turned, "EXIF orientation"),
    ],
)
@pytest.mark.parametrize("is_train", [True, False])
def test_a_bad_image_is_named_with_its_record(image, damage, sentence, is_train):
    damage(image)
    with pytest.raises(DataError, match=sentence) as caught:
        mapper(is_train=is_train)(record(image))
    assert str(image) in str(caught.value)
    assert "image id 5" in str(caught.value)


def test_rle_where_polygons_are_read_names_the_switch(image):
    bad = record(image)
    bad["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": [0, 40, 560]}
    with pytest.raises(DataError, match="instance_mask_format=bitmask"):
        mapper()(bad)


def test_objects_without_masks_where_masks_are_trained(image):
    bad = record(image)
    del bad["annotations"][0]["segmentation"]
    with pytest.raises(DataError, match="its objects have no segmentation"):
        mapper()(bad)
    assert len(mapper(use_instance_mask=False)(bad)["instances"]) == 1


def test_objects_of_which_some_have_masks(image):
    bad = record(image)
    bad["annotations"].append({**bad["annotations"][0], "segmentation": []})
    with pytest.raises(DataError, match="some of its objects have no segmentation"):
        mapper()(bad)


def test_masks_of_all_records_can_be_checked_before_any_image_is_read(image):
    good, bare, rle = (record(image, image_id=number) for number in (1, 2, 3))
    del bare["annotations"][0]["segmentation"]
    rle["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": b"x"}
    bare["file_name"] = rle["file_name"] = "gone.png"
    mapper().check_records([good, {**good, "annotations": []}])
    with pytest.raises(DataError, match=r"image id 2: .* no segmentation.*\(1 more images like"):
        mapper().check_records([good, bare, rle])
    with pytest.raises(DataError, match=r"image id 3: .* set .*instance_mask_format=bitmask\.$"):
        mapper().check_records([good, rle])
    mapper(use_instance_mask=False).check_records([bare, rle])
    mapper(is_train=False).check_records([bare, rle])


def test_other_errors_name_the_image_and_keep_their_cause(image):
    class Broken(T.Augmentation):
        def get_transform(self, image):
            raise ZeroDivisionError

    with pytest.raises(
        AugmentationError, match=r"cannot be prepared .*ZeroDivisionError"
    ) as caught:
        mapper([Broken()])(record(image))
    assert str(image) in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("annotations", ["none", "a crowd"])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_an_image_without_objects_is_mapped_to_no_instances(image, annotations, mask_format):
    item = record(image)
    if annotations == "none":
        item["annotations"] = []
    else:
        item["annotations"][0]["iscrowd"] = 1
    prepare = mapper([T.RandomFlip()], recompute_boxes=True, instance_mask_format=mask_format)
    mapped = prepare(item)
    assert len(mapped["instances"]) == 0 and mapped["instances"].gt_boxes.tensor.shape == (0, 4)
    assert mapped["instances"].image_size == (20, 30)
    assert "annotations" not in mapped and "annotations" in item
