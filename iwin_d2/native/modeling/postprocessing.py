"""From what a detector sees to what its user sees."""

from torch import Tensor

from ..layers import paste_masks_in_image
from ..structures import Boxes, Instances

__all__ = ["detector_postprocess"]


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Bring detections to the size that the user wants, usually that of the original image.

    Args:
        results: detections on the detector's input, whose size is `results.image_size`.
        output_height: rows of the image wanted.
        output_width: columns of the image wanted.
        mask_threshold: probability from which a pixel belongs to an object.

    Returns:
        New Instances: boxes scaled and clipped, the empty ones dropped, `pred_masks` pasted into
        Tensor[N, output_height, output_width] of bool.
    """
    height, width = results.image_size
    results = Instances((output_height, output_width), **results.get_fields())
    name = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    boxes: Boxes = results.get(name).clone()  # the caller's own stay as they are
    boxes.scale(output_width / width, output_height / height)
    boxes.clip(results.image_size)
    results.set(name, boxes)
    results = results[boxes.nonempty()]
    if results.has("pred_masks"):
        masks: Tensor = results.pred_masks
        results.pred_masks = paste_masks_in_image(
            masks[:, 0], results.get(name), results.image_size, threshold=mask_threshold
        )
    return results
