"""Mask R-CNN T against torchvision's Mask R-CNN and, where installed, Detectron2's own with Swin-T.

All of them with random weights, on random images with boxes in them. No score is too low for a
detection, so that each makes the masks of 100.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from .. import model_zoo
from ..d2.config import instantiate
from ..d2.framework import USE_DETECTRON2
from ..d2.structures import Boxes, Instances, PolygonMasks
from ..d2.utils.events import EventStorage
from .whole_models import compare

__all__ = ["benchmark_detector"]

SIZE = (800, 1216)
OURS = "ours: Mask R-CNN, Iwin-T"
CHECKPOINTING = "ours with activation checkpointing"
TORCHVISION = "torchvision maskrcnn_resnet50_fpn_v2"
SWIN = "Detectron2's Mask R-CNN on its Swin-T"
_CONFIG = "mask_rcnn/mask_rcnn_iwin_t_1x_coco"
_CLASSES = 80
_OBJECTS = 10  # in an image

Run = Callable[[], object]


def benchmark_detector(rounds: int = 5, size: tuple[int, int] = SIZE) -> Iterator[str]:
    """Compare inference on one image, and training iterations on two.

    Args:
        rounds: timings of each.
        size: height and width of the images.
    """
    inference = {
        OURS: _ours,
        TORCHVISION: _torchvision,
        **({SWIN: _swin} if USE_DETECTRON2 else {}),
    }
    sides = "x".join(map(str, size))
    yield from _compare(f"Mask R-CNN, inference, 1x{sides}", inference, False, 1, size, rounds)
    training = {OURS: _ours, CHECKPOINTING: _checkpointing, **inference}
    yield from _compare(
        f"Mask R-CNN, training iteration, 2x{sides}", training, True, 2, size, rounds
    )


def _compare(
    title: str,
    models: dict[str, Callable[[], nn.Module]],
    training: bool,
    images: int,
    size: tuple[int, int],
    rounds: int,
) -> list[str]:
    builds = {name: partial(build, make, training, images, size) for name, make in models.items()}
    framework = "Detectron2" if USE_DETECTRON2 else "native; Detectron2 is not installed"
    return compare(title, builds, rounds, f"Ours on {framework}.", {SWIN: "at least 1"})


def build(make: Callable[[], nn.Module], training: bool, images: int, size: tuple[int, int]) -> Run:
    """Build a model; return what runs inference, or a training iteration, once."""
    torch.manual_seed(0)
    model = make().train(training)
    if make is _torchvision:
        model.transform.min_size = (min(size),)  # images as they are, not resized
    scenes = [_scene(size, number) for number in range(images)]
    call = _call_torchvision if make is _torchvision else _call_detectron2
    if not training:
        return partial(_infer, model, call, scenes)
    # As little as that: an iteration more or less is to change no time.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-7)
    return partial(_train, model, call, scenes, optimizer)


def _config():
    cfg = model_zoo.get_config(_CONFIG).model
    cfg.roi_heads.box_predictor.test_score_thresh = 0.0
    cfg.backbone.bottom_up.drop_path_rate = 0.0  # Detectron2's SwinTransformer wants timm for it
    return cfg


def _ours() -> nn.Module:
    return instantiate(_config())


def _checkpointing() -> nn.Module:
    cfg = _config()
    cfg.backbone.bottom_up.use_checkpoint = True
    return instantiate(cfg)


def _swin() -> nn.Module:
    cfg = _config()
    cfg.backbone.bottom_up = {
        "_target_": "detectron2.modeling.SwinTransformer",
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "window_size": 7,
        "drop_path_rate": 0.0,
        "out_indices": [0, 1, 2, 3],
    }
    cfg.backbone.in_features = ["p0", "p1", "p2", "p3"]
    return instantiate(cfg)


def _torchvision() -> nn.Module:
    return maskrcnn_resnet50_fpn_v2(
        weights=None,
        weights_backbone=None,
        num_classes=_CLASSES + 1,
        box_score_thresh=0.0,
    )


def _scene(size: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a random image, uint8 Tensor[3, H, W], boxes Tensor[N, 4] in it, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)
    height, width = size
    corners = torch.rand(_OBJECTS, 4, generator=generator)
    sides = torch.tensor([width, height]) * (0.1 + 0.3 * corners[:, 2:])
    first = corners[:, :2] * (torch.tensor([width, height]) - sides)
    classes = torch.randint(0, _CLASSES, (_OBJECTS,), generator=generator)
    return image, torch.cat([first, first + sides], 1), classes


def _call_detectron2(model: nn.Module, scenes: list) -> object:
    inputs = []
    for image, boxes, classes in scenes:
        height, width = image.shape[-2:]
        truth = Instances((height, width))
        truth.gt_boxes, truth.gt_classes = Boxes(boxes.clone()), classes
        truth.gt_masks = PolygonMasks([[_outline(box)] for box in boxes.tolist()])
        inputs.append({"image": image, "height": height, "width": width, "instances": truth})
    with EventStorage():
        return model(inputs)


def _outline(box: list[float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1])


def _call_torchvision(model: nn.Module, scenes: list) -> object:
    images = [image / 255 for image, _, _ in scenes]
    if not model.training:
        return model(images)
    targets = [
        {"boxes": boxes.clone(), "labels": classes + 1, "masks": _masks(image, boxes)}
        for image, boxes, classes in scenes
    ]
    return model(images, targets)


def _masks(image: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    masks = torch.zeros(len(boxes), *image.shape[-2:], dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0:y1, x0:x1] = 1
    return masks


@torch.no_grad()
def _infer(model: nn.Module, call: Callable, scenes: list) -> object:
    return call(model, scenes)


def _train(model: nn.Module, call: Callable, scenes: list, optimizer) -> float:
    loss = sum(call(model, scenes).values())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()
