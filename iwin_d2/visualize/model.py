"""The attention of a config's model on an image file."""

import os
import re
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import load_pretrained
from ..checkpoint.download import locate
from ..engine.build import build
from ..engine.class_names import read_checkpoint_metadata, settle_num_classes
from ..engine.cli import pick_device
from ..engine.images import read_rgb
from ..errors import CheckpointError, ConfigError, DataError
from .attention import WindowAttention, find_backbone, window_attention
from .data import to_rgb

__all__ = ["attention_of_file"]


def attention_of_file(
    cfg: DictConfig,
    weights: str | os.PathLike | None,
    image: str | os.PathLike,
    *,
    stage: str,
    block: int | None,
    at: tuple[float, float] | None,
) -> tuple[WindowAttention, np.ndarray]:
    """Compute where a token attends on an image, prepared as the config's test images are.

    Args:
        cfg: a config of a detector or segmenter, with dataloader.test.mapper; its model's number of
            classes is filled in.
        weights: a checkpoint's file, address or published name, of which the backbone is taken:
            that of a classifier does, too. None takes train.init_checkpoint.
        image: the file.
        stage: "res2" to "res5".
        block: from 0; None for the stage's last.
        at: x and y in pixels of the file; None for its middle.

    Returns:
        the attention, and the image as the model is given it, RGB, uint8 [h, w, 3].

    Raises:
        CheckpointError: there are no weights, or they do not fill the backbone.
        ConfigError: there is no such stage, block or pixel, or no Iwin backbone in the config.
        DataError: the image cannot be read.
    """
    if not Path(image).is_file():
        raise DataError(f"There is no image {image}: correct the path.")
    height, width = read_rgb(image).shape[:2]
    x, y = at or (width / 2, height / 2)
    if not (0 <= x < width and 0 <= y < height):
        raise ConfigError(
            f"The point {x:g},{y:g} is outside of {image}, which is {width} x {height} pixels: "
            f"give x from 0 to {width - 1} and y from 0 to {height - 1}."
        )
    for key in ("model", "dataloader.test.mapper"):
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"The config has no {key}: give a model's, with its test data.")
    mapper = build(cfg, "dataloader.test.mapper")
    record = {"file_name": str(image), "image_id": 0, "height": height, "width": width}
    try:
        model_input = mapper(record)
    except DataError as error:  # of a data set, which there is none of here
        raise DataError(re.sub(r"^image (id )?0: ", "", error.sentence)) from error
    model = _load_model(cfg, weights)
    # Augmentations of test images change nothing but their size.
    scale_y, scale_x = (a / b for a, b in zip(model_input["image"].shape[-2:], (height, width)))
    place = (x + 0.5) * scale_x, (y + 0.5) * scale_y
    attention = window_attention(model, model_input, stage=stage, block=block, at=place)
    return attention, to_rgb(model_input["image"], getattr(mapper, "image_format", "RGB"))


def _load_model(cfg: DictConfig, weights: str | os.PathLike | None):
    """The config's model in eval mode, weights in its backbone; its heads are as they come."""
    weights = str(weights or OmegaConf.select(cfg, "train.init_checkpoint") or "")
    if not weights:
        raise CheckpointError(
            "No weights: give a checkpoint of this config, or of its backbone (--weights FILE), or "
            "set train.init_checkpoint."
        )
    path = locate(weights)
    settle_num_classes(cfg, read_checkpoint_metadata(path))
    device = pick_device(str(OmegaConf.select(cfg, "train.device") or "cpu"))
    model = build(cfg, "model")
    load_pretrained(find_backbone(model), path)
    return model.to(device).eval()
