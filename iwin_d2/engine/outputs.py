"""What models return in inference: which kind it is, brought to the CPU, scores made labels."""

from collections.abc import Mapping
from typing import Any

import torch

from ..d2.structures import Boxes, Instances
from ..errors import ConfigError
from ..modeling.segmentation_inference import predicted_labels

__all__ = ["is_segmentation", "on_cpu", "without_scores"]

SCORES, LABELS = "sem_seg", "sem_seg_labels"


def is_segmentation(output: Mapping[str, Any]) -> bool:
    """Whether a model's output for an image is a segmentation; False for one of objects.

    Raises:
        ConfigError: it is neither.
    """
    if "instances" in output:  # as well as a segmentation, perhaps
        return False
    if SCORES in output or LABELS in output:
        return True
    raise ConfigError(
        f"The model returns {', '.join(map(str, output)) or 'nothing'}, but no instances and no "
        "sem_seg: only detectors and semantic segmenters can be shown."
    )


def without_scores(output: Mapping[str, Any]) -> dict[str, Any]:
    """An output in which "sem_seg_labels", int32 [H, W], stand in place of "sem_seg".

    One with objects, too, is left as it is.
    """
    if SCORES not in output or "instances" in output:
        return dict(output)
    kept = {name: value for name, value in output.items() if name != SCORES}
    return {**kept, LABELS: predicted_labels(output)}


def on_cpu(value: Any) -> Any:
    """A part of a model's output on the CPU, half precision made float32."""
    if isinstance(value, Instances):
        fields = {name: on_cpu(field) for name, field in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if isinstance(value, Boxes):
        return Boxes(on_cpu(value.tensor))
    if isinstance(value, torch.Tensor):
        value = value.to("cpu")
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return value.to("cpu") if hasattr(value, "to") else value
