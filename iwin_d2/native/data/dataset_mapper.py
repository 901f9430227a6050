"""From a record of a data set to the model's input."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from . import detection_utils as utils
from . import transforms as T


class DatasetMapper:
    """Read the image of a record, augment it together with its annotations, and make tensors.

    The result is the record without its annotations, but with `image` (uint8 tensor [C, H, W]), in
    training `instances`, and, where the record names a segmentation file, `sem_seg` (int64 tensor
    [H, W]). Crowd annotations are left out. The record passed in is not changed.
    `recompute_boxes` takes the boxes anew from the augmented masks: tight after a crop.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        instance_mask_format: str = "polygon",
        recompute_boxes: bool = False,
    ):
        if recompute_boxes and not use_instance_mask:
            raise AssertionError("recompute_boxes needs use_instance_mask")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes
        mode = "training" if is_train else "inference"
        logging.getLogger(__name__).info("Augmentations in %s: %s", mode, self.augmentations)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
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
        # One copy: what came from a file is read-only, and transforms leave views.
        channels_first = np.atleast_3d(aug_input.image).transpose(2, 0, 1)
        dataset_dict["image"] = torch.from_numpy(np.array(channels_first, order="C"))
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        elif "annotations" in dataset_dict:
            self._transform_annotations(dataset_dict, transforms, aug_input.image.shape[:2])
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
