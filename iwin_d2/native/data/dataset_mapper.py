"""From a record of a data set to the model's input."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from . import detection_utils as utils
from . import transforms as T

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Read the image of a record, augment it together with its annotations, and make tensors.

    The result is the record without its annotations, but with `image` (uint8 tensor [C, H, W]), in
    training `instances`, and, where the record names a segmentation file, `sem_seg` (int64 tensor
    [H, W]). Crowd annotations are left out. The record passed in is not changed.

    Args:
        is_train: whether annotations are used.
        augmentations: what to do with the image, in order.
        image_format: as for `read_image`.
        use_instance_mask: whether masks are used.
        use_keypoint: not supported here.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: not supported here.
        precomputed_proposal_topk: not supported here.
        recompute_boxes: take the boxes anew from the augmented masks, which makes them tight after
            a crop.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ):
        if use_keypoint or precomputed_proposal_topk is not None:
            raise NotImplementedError("keypoints and precomputed proposals need Detectron2")
        if recompute_boxes and not use_instance_mask:
            raise AssertionError("recompute_boxes needs use_instance_mask")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.use_keypoint = use_keypoint
        self.instance_mask_format = instance_mask_format
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.recompute_boxes = recompute_boxes
        mode = "training" if is_train else "inference"
        logging.getLogger(__name__).info("Augmentations in %s: %s", mode, self.augmentations)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn one record into one model input."""
        # Not deep copies, which would cost more than the augmentation of the annotations: nothing
        # below changes a record's inner values, it replaces them.
        dataset_dict = dict(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format=self.image_format)
        utils.check_image_size(dataset_dict, image)
        sem_seg = None
        if "sem_seg_file_name" in dataset_dict:
            file_name = dataset_dict.pop("sem_seg_file_name")
            if self.is_train:
                sem_seg = utils.read_image(file_name, "L").squeeze(2)
        aug_input = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(aug_input)
        image_shape = aug_input.image.shape[:2]
        dataset_dict["image"] = _to_tensor(aug_input.image)
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        elif "annotations" in dataset_dict:
            self._transform_annotations(dataset_dict, transforms, image_shape)
        return dataset_dict

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.Transform, image_shape: tuple[int, int]
    ) -> None:
        """Replace the record's annotations by `instances`."""
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        annotations = [
            utils.transform_instance_annotations(
                {key: value for key, value in annotation.items() if key not in unused},
                transforms,
                image_shape,
            )
            for annotation in dataset_dict.pop("annotations")
            if annotation.get("iscrowd", 0) == 0
        ]
        instances = utils.annotations_to_instances(
            annotations, image_shape, mask_format=self.instance_mask_format
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(instances)


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """Return an image [H, W, C] as a tensor [C, H, W], by a single copy."""
    if image.ndim == 2:
        image = image[:, :, None]
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
