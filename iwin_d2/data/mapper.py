"""The detection data mapper, with errors that name the image file and the record."""

from collections.abc import Iterable

from PIL import Image

from ..d2.data import DatasetMapper
from ..d2.data.detection_utils import annotations_to_instances
from ..errors import AugmentationError, DataError, UserError
from .image_check import deep_image_problem, diagnose_image

__all__ = ["DetectionMapper", "depth_problem", "preparation_error"]


class DetectionMapper(DatasetMapper):
    """A `DatasetMapper` that says which image could not be prepared, why, and what to do.

    Takes the arguments of `DatasetMapper`.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        """Map a record of a data set to the model's input.

        Raises:
            DataError: the image is missing, damaged, not an image, of more than 8 bits a channel
                or of another size than the json says, or its masks do not have the format that
                `instance_mask_format` names.
            AugmentationError: the image is whole, but something in its preparation fails.
        """
        problem = self._mask_problem(dataset_dict) or depth_problem(dataset_dict["file_name"])
        if problem:
            raise DataError(f"image id {dataset_dict.get('image_id')}: {problem}.")
        try:
            return super().__call__(dataset_dict)
        except UserError:
            raise
        except Exception as error:
            identity = f"image id {dataset_dict.get('image_id')}"
            raise preparation_error(identity, dataset_dict, error, self.is_train) from error

    def check_records(self, records: Iterable[dict]) -> None:
        """Check, without reading images, that the records' masks can be trained as configured.

        Raises:
            DataError: the first record that could not be mapped, and the number of the others.
        """
        problems = ((record, self._mask_problem(record)) for record in records)
        bad = [(record["image_id"], problem) for record, problem in problems if problem]
        if bad:
            more = f" ({len(bad) - 1} more images like this one.)" if len(bad) > 1 else ""
            raise DataError(f"image id {bad[0][0]}: {bad[0][1]}.{more}")

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        """Replace the record's annotations by `instances`."""
        if any(not a.get("iscrowd", 0) for a in dataset_dict["annotations"]):
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        # Detectron2's would look for masks to make boxes of, and without objects there are none.
        del dataset_dict["annotations"]
        dataset_dict["instances"] = annotations_to_instances(
            [], image_shape, mask_format=self.instance_mask_format
        )

    def _mask_problem(self, dataset_dict: dict) -> str | None:
        """What keeps the masks of a record from being trained on, None if all is well."""
        if not (self.is_train and self.use_instance_mask):
            return None
        name = dataset_dict["file_name"]
        objects = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        masks = [item.get("segmentation") for item in objects]
        if not all(masks):
            lack = "some of its objects have" if any(masks) else "its objects have"
            return (
                f"{name} is to train masks, but {lack} no segmentation in the json: give every "
                "object one, or train boxes alone, as custom_coco_boxes.py does"
            )
        if self.instance_mask_format == "polygon" and any(isinstance(m, dict) for m in masks):
            return (
                f"{name} has masks in RLE, but the config reads polygons: set "
                "dataloader.train.mapper.instance_mask_format=bitmask"
            )
        return None


def depth_problem(path: str) -> str | None:
    """Whether training would see only a part of an image file's range, as Pillow converts it."""
    try:
        # The header alone, which costs little beside the decoding.
        with Image.open(path) as image:
            return deep_image_problem(path, image)
    except Exception:  # the reading proper says what is wrong
        return None


def preparation_error(
    identity: str, record: dict, error: Exception, is_train: bool
) -> DataError | AugmentationError:
    """What to raise where a record could not be mapped: the image's fault, or the augmentations'.

    Args:
        identity: which image it is, to begin the sentence with.
        record: with file_name and, if they are known, width and height.
        error: what was raised.
        is_train: of the mapper.
    """
    name, width, height = record["file_name"], record.get("width"), record.get("height")
    problem = diagnose_image(name, width, height)
    if problem is not None:
        return DataError(f"{identity}: {problem}.")
    # Augmentations can be anybody's, and fail in any way.
    reason = " ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(".:")
    size = f", {width} x {height} pixels" if width and height else ""
    return AugmentationError(
        f"{identity}: {name} cannot be prepared for the model ({reason}{size}): check the "
        f"image, its objects, and dataloader.{'train' if is_train else 'test'}.mapper "
        "with its augmentations (IWIN_D2_TRACEBACK=1 shows where)."
    )
