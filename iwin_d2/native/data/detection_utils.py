"""Images and annotations: from files and records to arrays and Instances."""

import os
from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util
import torch
from fvcore.transforms.transform import Transform, TransformList
from PIL import Image, ImageOps

from ..structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from ..utils.file_io import PathManager

_EXIF_ORIENTATION = 0x0112


class SizeMismatchError(ValueError):
    """An image is not of the size that its record says."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image file, turned the way its EXIF orientation says: uint8 [H, W, C].

    `format` is "RGB", "BGR", "L" (C is 1), another mode of Pillow, or None for the file's own mode.
    Greyscale, palette, CMYK, RGBA (the alpha channel is dropped) and 16-bit images (their upper
    eight bits are kept) are converted to it.
    """
    with PathManager.open(os.fspath(file_name), "rb") as file:
        image = Image.open(file)
        image = _upright(image)
        if format is not None:
            image = _convert(image, "RGB" if format == "BGR" else format)
        # Here, while the file is open: Pillow decodes late.
        array = np.asarray(image)
    if format == "BGR":
        array = array[:, :, ::-1]
    elif format == "L":
        array = array[:, :, None]
    return array


def _upright(image: Image.Image) -> Image.Image:
    """Undo the rotation that the camera noted."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF comes in many ways and says nothing about the pixels
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert to another mode of Pillow; where Pillow would clip 16 bits, keep the upper eight."""
    if image.mode.startswith("I"):  # "I;16"; "I" for 16-bit PNG in older versions
        values = np.asarray(image)
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # converts colours alike, but without a warning
    return image if image.mode == mode else image.convert(mode)


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Refuse an image that is not of its record's size; fill the size in where there is none."""
    height, width = image.shape[:2]
    expected = (dataset_dict.get("width", width), dataset_dict.get("height", height))
    if expected != (width, height):
        raise SizeMismatchError(
            f"image {dataset_dict.get('file_name', '')} is {width} x {height} pixels (width x "
            f"height), but its record says {expected[0]} x {expected[1]}: correct the record, or "
            "check that the image has not been resized or rotated."
        )
    dataset_dict["width"], dataset_dict["height"] = width, height


def transform_instance_annotations(
    annotation: dict, transforms: Transform | Sequence[Transform], image_size: tuple[int, int]
) -> dict:
    """Move an annotation, in place, along with its image, whose new (height, width) is given.

    The box is cut to the new image. Polygons become float arrays, RLE a uint8 bitmap [H, W].
    """
    if isinstance(transforms, (tuple, list)):
        transforms = TransformList(transforms)
    height, width = image_size
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    # float, or transforms would round in place
    box = transforms.apply_box(np.array([box], dtype=np.float64))[0]
    annotation["bbox"] = np.clip(box, 0, (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        annotation["segmentation"] = [p.ravel() for p in transforms.apply_polygons(polygons)]
    elif segmentation is not None:
        mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        if mask.shape[:2] != tuple(image_size):
            raise AssertionError(f"a mask of {mask.shape[:2]} on an image of {image_size}")
        annotation["segmentation"] = mask
    return annotation


def annotations_to_instances(
    annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Put annotations, as `transform_instance_annotations` leaves them, into Instances.

    These have gt_boxes, gt_classes (int64) and, if the annotations have segmentations, gt_masks:
    PolygonMasks ("polygon"; ValueError for bitmaps) or BitMasks ("bitmask").
    """
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4)))
    instances.gt_classes = torch.tensor([a["category_id"] for a in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segmentations = [annotation["segmentation"] for annotation in annos]
        if mask_format == "polygon":
            if not all(isinstance(segmentation, list) for segmentation in segmentations):
                raise ValueError(
                    "some masks of this data set are RLE or bitmaps, not polygons: "
                    "set the mapper's instance_mask_format='bitmask'."
                )
            instances.gt_masks = PolygonMasks(segmentations)
        elif mask_format == "bitmask":
            instances.gt_masks = BitMasks(np.stack([_bitmap(s, image_size) for s in segmentations]))
        else:
            raise ValueError(f"mask_format is 'polygon' or 'bitmask', got {mask_format!r}")
    return instances


def _bitmap(segmentation: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return polygons, RLE or a bitmap as a bitmap [H, W]."""
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    decoded = mask_util.decode(segmentation) if isinstance(segmentation, dict) else segmentation
    return decoded.astype(bool)


def filter_empty_instances(
    instances: Instances, by_box: bool = True, by_mask: bool = True, box_threshold: float = 1e-5
) -> Instances:
    """Drop instances that a crop has left nothing of.

    `by_box`: whose box is not wider and higher than `box_threshold` pixels; `by_mask`: whose mask
    is empty.
    """
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    return instances if bool(keep.all()) else instances[keep]
