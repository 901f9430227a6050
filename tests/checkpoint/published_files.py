"""Checkpoints with the keys and shapes of the published ones, and models of their shapes."""

import copy
import functools
import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from iwin_d2.checkpoint.architecture import HEADS, SIZES
from iwin_d2.d2.config import LazyConfig, instantiate

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "configs/common/models"

TINY = "iwin_tiny_patch4_window7_224"
SMALL = "iwin_small_patch4_window7_224"
MASK_RCNN_T = "mask_rcnn_iwin_tiny_patch4_window7_mstrain_480-800_adamw_1x_coco"
CASCADE_T = "cascade_mask_rcnn_iwin_tiny_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_1x_coco"
UPERNET_T = "upernet_iwin_tiny_patch4_window7_512x512_160k_ade20k"
VIDEO_T = "iwin_tiny_patch244_window77_kinetics400_1k"


@functools.cache
def manifests(kind: str) -> dict[str, dict]:
    """Keys, shapes and parameter counts of published models: "cls", "det", "seg" or "vid"."""
    with gzip.open(ROOT / "tests/golden/published_manifests.json.gz") as file:
        return json.load(file)[kind]


def manifest(name: str) -> dict:
    """The manifest of one model."""
    return next(found[name] for found in map(manifests, KINDS) if name in found)


KINDS = ("cls", "det", "seg", "vid")


def state_dict(name: str, seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    """Random weights with a model's keys and shapes: each tensor full of one number.

    They take no memory, and no room in a file. Changes are shapes by keys whose dots are `__`;
    None leaves a key out.
    """
    generator = torch.Generator().manual_seed(seed)
    others = {key.replace("__", "."): shape for key, shape in changes.items()}
    shapes = {**manifest(name)["state_dict"], **others}
    return {
        key: torch.ones((), dtype=torch.long).expand(shape)
        if key.endswith("num_batches_tracked")
        else torch.rand((), generator=generator).expand(shape)
        for key, shape in shapes.items()
        if shape is not None
    }


def classifier_file(path, name: str = TINY, **changes) -> str:
    """Write an image classifier as it is published; returns its path."""
    torch.save({"model": state_dict(name, **changes)}, path)
    return str(path)


def detector_file(path, name: str = CASCADE_T, **changes) -> str:
    """Write a detector as MMDetection leaves it; returns its path."""
    meta = {"CLASSES": tuple(f"class {number}" for number in range(80)), "epoch": 12}
    content = {"meta": meta, "state_dict": state_dict(name, **changes), "optimizer": {"state": {}}}
    torch.save(content, path)
    return str(path)


def detector(task: str, size: str = "Iwin-T", *, memory: bool = False) -> nn.Module:
    """A detector of a published size, by default without memory for its weights.

    Args:
        task: "cascade_mask_rcnn" or "mask_rcnn".
        size: "Iwin-T", ...
        memory: whether it is to have weights, random ones.
    """
    model = _config(f"configs/common/models/{task}_iwin.py")
    embed_dim, depths = SIZES[size]
    model.backbone.bottom_up.update(
        embed_dim=embed_dim, depths=list(depths), num_heads=list(HEADS[size])
    )
    return build(lambda: instantiate(model), memory=memory)


def segmenter(
    size: str = "Iwin-T", *, head: str = "upernet", num_classes: int = 150, memory: bool = False
) -> nn.Module:
    """A segmenter of a published size, by default without memory for its weights.

    Args:
        size: "Iwin-T", ...
        head: "upernet" or "semantic_fpn".
        num_classes: of pixels.
        memory: whether it is to have weights, random ones.
    """
    model = _config(f"configs/common/models/{head}_iwin.py")
    embed_dim, depths = SIZES[size]
    backbone = model.backbone.get("bottom_up", model.backbone)
    backbone.update(embed_dim=embed_dim, depths=list(depths), num_heads=list(HEADS[size]))
    model.sem_seg_head.num_classes = num_classes
    return build(lambda: instantiate(model), memory=memory)


def small_detector(project: str = "cascade_mask_rcnn", num_classes: int = 5, *, boxes=False):
    """A detector of a few million random parameters, of the configs for one's own data."""
    model = _config(f"projects/{project}/configs/custom_coco_small{'_boxes' if boxes else ''}.py")
    model.roi_heads.num_classes = num_classes
    return build(lambda: instantiate(model))


@functools.cache
def _loaded(path: str):
    return LazyConfig.load(str(ROOT / path)).model


def _config(path: str):
    return copy.deepcopy(_loaded(path))


_SEEDS = itertools.count()


def build(make: Callable[[], nn.Module], *, memory: bool = True) -> nn.Module:
    """What `make` builds, without the time for a proper initialisation of its weights."""
    with torch.device("meta"), mock.patch.object(nn.init, "trunc_normal_"):
        model = make()
    if memory:
        model.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(next(_SEEDS))
        for value in model.state_dict().values():
            value.random_(0, 100, generator=generator)
    return model


def same_state(one: dict, other: dict) -> bool:
    """Whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's state as it is now."""
    return {name: value.clone() for name, value in model.state_dict().items()}
