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
from .catalog import MetadataCatalog

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "check_image_size",
    "check_metadata_consistency",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]

_EXIF_ORIENTATION = 0x0112


class SizeMismatchError(ValueError):
    """An image is not of the size that its record says."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image file, turned the way its EXIF orientation says.

    Greyscale, palette, CMYK, RGBA (the alpha channel is dropped) and 16-bit images (their upper
    eight bits are kept) are converted to `format`.

    Args:
        file_name: the file.
        format: "RGB", "BGR", "L", another mode of Pillow, or None for the mode of the file.

    Returns:
        uint8 array [H, W, C]; C is 1 for "L". With None, [H, W] where the file has one channel.
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
    """Compare an image with its record; fill in the record's height and width if it has none.

    Raises:
        SizeMismatchError: they differ.
    """
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
    annotation: dict,
    transforms: Transform | Sequence[Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> dict:
    """Move one annotation along with its image.

    The box is cut to the new image. Polygons become float arrays, RLE a uint8 bitmap [H, W].

    Args:
        annotation: an annotation of a record; its bbox, bbox_mode and segmentation are replaced,
            nothing inside them is changed.
        transforms: what was done to the image.
        image_size: (height, width) of the new image.
        keypoint_hflip_indices: not used; keypoints are left as they are.

    Returns:
        `annotation` itself.
    """
    if isinstance(transforms, (tuple, list)):
        transforms = TransformList(transforms)
    height, width = image_size
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    # float, or transforms would round in place
    box = transforms.apply_box(np.array([box], dtype=np.float64))[0]
    annotation["bbox"] = np.clip(box, 0, (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    return annotation


def _transform_segmentation(
    segmentation: list | dict, transforms: Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    if isinstance(segmentation, list):
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        return [p.reshape(-1) for p in transforms.apply_polygons(polygons)]
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        if mask.shape[:2] != tuple(image_size):
            raise AssertionError(f"a mask of {mask.shape[:2]} on an image of {image_size}")
        return mask
    raise ValueError(
        f"a segmentation is a list of polygons or RLE as a dict, got {type(segmentation).__name__}"
    )


def annotations_to_instances(
    annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Put an image's annotations into Instances for the model.

    Args:
        annos: annotations as `transform_instance_annotations` leaves them.
        image_size: (height, width) of the image.
        mask_format: "polygon" or "bitmask".

    Returns:
        Instances with gt_boxes, gt_classes (int64) and, if the annotations have segmentations,
        gt_masks: PolygonMasks or BitMasks.

    Raises:
        ValueError: bitmaps where `mask_format` is "polygon".
    """
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4)))
    instances.gt_classes = torch.tensor([a["category_id"] for a in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        segmentations = [annotation["segmentation"] for annotation in annos]
        if mask_format == "polygon":
            instances.gt_masks = _polygon_masks(segmentations)
        elif mask_format == "bitmask":
            instances.gt_masks = _bit_masks(segmentations, image_size)
        else:
            raise ValueError(f"mask_format is 'polygon' or 'bitmask', got {mask_format!r}")
    return instances


def _polygon_masks(segmentations: list) -> PolygonMasks:
    if not all(isinstance(segmentation, list) for segmentation in segmentations):
        raise ValueError(
            "some masks of this data set are RLE or bitmaps, not polygons: "
            "set the mapper's instance_mask_format='bitmask'."
        )
    return PolygonMasks(segmentations)


def _bit_masks(segmentations: list, image_size: tuple[int, int]) -> BitMasks:
    masks = np.empty((len(segmentations), *image_size), dtype=bool)
    for mask, segmentation in zip(masks, segmentations):
        if isinstance(segmentation, list):
            mask[...] = polygons_to_bitmask(segmentation, *image_size)
        elif isinstance(segmentation, dict):
            mask[...] = mask_util.decode(segmentation)
        else:
            mask[...] = segmentation
    return BitMasks(torch.from_numpy(masks))


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Drop instances that a crop has left nothing of.

    Args:
        instances: with gt_boxes, and perhaps gt_masks.
        by_box: drop those whose box is not wider and higher than `box_threshold` pixels.
        by_mask: drop those whose mask is empty.
        box_threshold: see above.
        return_mask: return the bool mask of what was kept, too.
    """
    if not (by_box or by_mask):
        raise AssertionError("filter_empty_instances needs by_box or by_mask")
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    kept = instances if bool(keep.all()) else instances[keep]
    return (kept, keep) if return_mask else kept


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Check that data sets to be joined agree in one attribute of their metadata.

    Raises:
        ValueError: they do not.
    """
    if not dataset_names:
        return
    first = MetadataCatalog.get(dataset_names[0]).get(key)
    for name in dataset_names[1:]:
        other = MetadataCatalog.get(name).get(key)
        if other != first:
            raise ValueError(
                f"data sets {dataset_names[0]!r} and {name!r} cannot be joined, for they differ in "
                f"{key}: {first} and {other}."
            )
