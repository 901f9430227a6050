"""A detector from a lazy config and weights: images in, Instances out."""

import copy
import functools
import logging
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from ..checkpoint import Checkpointer, LoadOptions
from ..checkpoint.download import locate
from ..checkpoint.options import make_options
from ..config_overrides import apply_overrides
from ..d2.data import DatasetMapper
from ..d2.data import transforms as T
from ..d2.evaluation import inference_context
from ..d2.structures import Boxes, Instances
from ..data.mapper import DetectionMapper
from ..errors import CheckpointError, ConfigError, DataError, UserError
from ..modeling.tta import DetectorWithTTA
from .build import build
from .class_names import find_metadata, read_checkpoint_metadata, settle_num_classes
from .cli import name_missing_values, pick_device
from .detection import load_config
from .images import image_to_rgb, read_rgb
from .model_check import explain_misfit
from .pipeline import batched_map, ordered_map
from .tta import as_evaluated

__all__ = ["Predictor"]

logger = logging.getLogger(__name__)

# Mappers whose whole work at test time is known: the image format, then the augmentations.
_PLAIN = (DatasetMapper.__call__, DetectionMapper.__call__)
_WINDOW = 4  # batches' worth of images that are held while batches fill


class Predictor:
    """A detector from a lazy config and weights, for single images, lists and streams of them.

        predictor = Predictor("projects/.../config.py", "output/model_final.pth")
        instances = predictor("photo.jpg")["instances"]
        names = [predictor.class_names[index] for index in instances.pred_classes]

    Images are read and augmented exactly as the config's `dataloader.test.mapper` does it. An image
    is one of

    - a path of an image file, turned as its EXIF orientation says;
    - a PIL image, turned likewise;
    - an array uint8 [H, W, 3] in `array_format`, by default BGR: what OpenCV reads and what
      Detectron2's DefaultPredictor takes. Arrays [H, W] and [H, W, 1] are grey; of [H, W, 4], the
      fourth channel is left out.

    For each image the model's output is returned, on the CPU: {"instances": Instances}, in pixels
    of the image given: pred_boxes, scores, pred_classes and, of a model with masks, pred_masks,
    bool [N, H, W].

    Meant for one thread; several predictors may work in several threads.

    Attributes:
        cfg: the config as it was used, overrides applied.
        weights: the checkpoint's file.
        model: the module, in eval mode, without test-time augmentation.
        device: where it runs.
        mapper: that of cfg.dataloader.test.
    """

    def __init__(
        self,
        config: str | PathLike | Mapping | DictConfig,
        weights: str | PathLike | None = None,
        overrides: Sequence[str] = (),
        *,
        device: str | torch.device | None = None,
        amp: bool | str | torch.dtype = False,
        array_format: str = "BGR",
    ):
        """Build the model and load its weights.

        Args:
            config: a lazy config with `model` and `dataloader.test.mapper`: its file (.py, or the
                .yaml that training leaves in its output folder), or what LazyConfig.load returns,
                which is not changed.
            weights: a checkpoint's file, address or published name; None takes the config's
                train.init_checkpoint.
            overrides: such as "model.roi_heads.num_classes=3".
            device: where to run; None takes the config's train.device, or the CPU where that is
                CUDA and there is none.
            amp: mixed precision: True for bfloat16 (float16 on GPUs without it), or the type.
            array_format: the order of the channels in arrays, "BGR" or "RGB".

        Raises:
            CheckpointError: there are no weights, or they do not fill the model.
            ConfigError: the config or an argument cannot be used.
        """
        if array_format not in ("BGR", "RGB"):
            raise ConfigError(f"array_format={array_format!r}: give 'BGR' or 'RGB'.")
        self.array_format = array_format
        self.cfg = _as_config(config, overrides)
        weights = str(weights or OmegaConf.select(self.cfg, "train.init_checkpoint") or "")
        if not weights:
            raise CheckpointError(
                "No weights: give a checkpoint of this config (--weights FILE, or the argument "
                "weights), or set train.init_checkpoint."
            )
        wanted = device or OmegaConf.select(self.cfg, "train.device") or "cuda"
        self.device = torch.device(pick_device(str(wanted)))
        self._amp_dtype = _amp_dtype(amp, self.device)
        self.weights = weights = locate(weights)
        self._checkpoint_metadata = read_checkpoint_metadata(weights)
        settle_num_classes(self.cfg, self._checkpoint_metadata)
        with name_missing_values():
            self.mapper = build(self.cfg, "dataloader.test.mapper")
            self.model: nn.Module = build(self.cfg, "model").to(self.device)
        Checkpointer(self.model).load(
            weights, checkpointables=[], fill=True, options=_init_options(self.cfg)
        )
        self.model.eval()
        self._detector = as_evaluated(self.model, OmegaConf.select(self.cfg, "train"))

    @functools.cached_property
    def metadata(self):
        """What is known of the classes (`thing_classes`, ...): from the checkpoint, else from the
        data sets of the config, read at the first use; None, with a warning, where nothing is.
        """
        return self._checkpoint_metadata or find_metadata(self.cfg)

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes, by class number; None where they are not known."""
        return list(self.metadata.thing_classes) if self.metadata is not None else None

    def __call__(self, image) -> dict[str, Any]:
        """Predict one image; returns the model's output for it, {"instances": Instances}.

        Raises:
            DataError: it is no image, or cannot be read.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence) -> list[dict[str, Any]]:
        """Predict a list of images, with as few passes of the model as `stream` needs.

        Returns:
            an output for each.

        Raises:
            DataError: one is no image, or cannot be read.
        """
        return list(self.stream(images, batch_size=max(len(images), 1), workers=0))

    def stream(
        self, images: Iterable, batch_size: int = 8, workers: int = 2
    ) -> Iterator[dict[str, Any]]:
        """Predict many images, in batches; yields an output for each, in their order.

        Predictions are those of the images one by one, but for rounding: one pass of the model
        takes only images that are padded to the same size. (Others would all be padded to the size
        of the largest, and an image's interleaved windows depend on the size it is padded to.)
        At most 5 * batch_size + workers images are in memory.

        Args:
            images: may be an endless iterator.
            batch_size: the most images in one pass of the model.
            workers: threads that read and augment; 0 for none.

        Raises:
            DataError: one is no image, or cannot be read; what came before has been yielded.
        """
        prepared = ordered_map(self.prepare, images, workers, batch_size + workers)
        for _, output in self.predict_stream(prepared, batch_size):
            yield output

    def predict_stream(self, items: Iterable, batch_size: int, get_input=lambda item: item):
        """Predict prepared items in batches; yields (item, output) in their order.

        Args:
            items: whatever holds a model input.
            batch_size: the most in one pass of the model.
            get_input: takes the model input out of an item.
        """
        return batched_map(
            lambda batch: self.predict_inputs([get_input(item) for item in batch]),
            items,
            key=lambda item: self._padded_size(get_input(item)["image"]),
            batch_size=batch_size,
            window=_WINDOW * batch_size if batch_size > 1 else 1,
        )

    def prepare(self, image, array_format: str | None = None) -> dict[str, Any]:
        """Read an image and make the model's input of it; may be called in any thread.

        Args:
            image: as for the predictor itself.
            array_format: of this array, if it is not the predictor's.

        Returns:
            "image", Tensor[C, h, w], and the "height" and "width" to give predictions in.

        Raises:
            DataError: it is no image, or cannot be read or augmented.
        """
        path = str(image) if isinstance(image, (str, PathLike)) else None
        try:
            if path is not None:
                return self._map_file(path)
            return self._map_pixels(image_to_rgb(image, array_format or self.array_format))
        except UserError as error:
            # The mapper speaks of a data set, which there is none of here.
            raise DataError(re.sub(r"^image id \w+: ", "", error.sentence)) from error
        except Exception as error:  # of augmentations, which can be anybody's
            raise DataError(
                f"{path or 'The image'} cannot be prepared for the model ({type(error).__name__}: "
                f"{error}): check the augmentations in dataloader.test.mapper."
            ) from error

    def predict_inputs(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict one batch of prepared model inputs; the outputs are on the CPU, in float32.

        Raises:
            ConfigError: the memory does not suffice, or the model cannot take its input.
        """
        enabled = self._amp_dtype is not None
        try:
            with (
                torch.no_grad(),
                inference_context(self._detector),
                torch.autocast(self.device.type, dtype=self._amp_dtype, enabled=enabled),
                explain_misfit(self.model),
            ):
                outputs = self._detector(inputs)
        except torch.OutOfMemoryError as error:
            height, width = (max(item["image"].shape[axis] for item in inputs) for axis in (1, 2))
            raise ConfigError(
                f"{self.device} has too little memory to predict {len(inputs)} images of up to "
                f"{width} x {height} pixels together: lower the batch size, or what the "
                f"augmentations of dataloader.test.mapper enlarge images to{self._or_scales()}."
            ) from error
        return [{key: _finished(value) for key, value in output.items()} for output in outputs]

    def _map_file(self, path: str) -> dict[str, Any]:
        """What the config's mapper makes of a file."""
        if not Path(path).exists():
            raise DataError(f"There is no image {path}: correct the path.")
        prepared = self.mapper({"file_name": path, "image_id": 0})
        if "height" not in prepared or "width" not in prepared:
            prepared["height"], prepared["width"] = read_rgb(path).shape[:2]
        return prepared

    def _map_pixels(self, pixels: np.ndarray) -> dict[str, Any]:
        """What the config's mapper would make of a file that holds these pixels, RGB [H, W, 3]."""
        if type(self.mapper).__call__ in _PLAIN and self.mapper.image_format in ("RGB", "BGR"):
            ordered = pixels if self.mapper.image_format == "RGB" else pixels[:, :, ::-1]
            augmented = T.AugInput(ordered)
            self.mapper.augmentations(augmented)
            tensor = torch.from_numpy(np.array(augmented.image.transpose(2, 0, 1), order="C"))
            return {"image": tensor, "height": pixels.shape[0], "width": pixels.shape[1]}
        # It works in a way of its own: give it such a file.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.bmp"
            Image.fromarray(pixels).save(path)
            return self._map_file(str(path))

    def _padded_size(self, image: torch.Tensor) -> tuple[int, ...]:
        """The size, of every view, that the model pads an image to when it is alone."""
        step = max(getattr(getattr(self.model, "backbone", None), "size_divisibility", 1), 1)
        sizes = [tuple(image.shape[-2:])]
        if isinstance(self._detector, DetectorWithTTA):
            sizes = self._detector.view_sizes(sizes[0])
        return tuple(-(-side // step) * step for size in sizes for side in size)

    def _or_scales(self) -> str:
        """What else can be lowered where memory does not suffice."""
        augmented = isinstance(self._detector, DetectorWithTTA)
        return ", or train.test_time_augmentation.scales" if augmented else ""


def _as_config(config, overrides: Sequence[str]) -> DictConfig:
    """A config of the predictor's own, overrides applied."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides!r}: give a list of strings.")
    if isinstance(config, (str, PathLike)):
        name = str(config)
        if "://" not in name and not Path(name).is_file():
            raise ConfigError(f"There is no config file {name}: correct the path.")
        cfg = load_config(name, list(overrides))
    elif isinstance(config, Mapping):
        name, cfg = "The config", copy.deepcopy(config)
        if not isinstance(cfg, DictConfig):
            cfg = DictConfig(dict(cfg), flags={"allow_objects": True})
        apply_overrides(cfg, overrides)
    else:
        raise ConfigError(
            f"The config is a {type(config).__name__}: give a lazy config's file, or what "
            "LazyConfig.load returns for it."
        )
    for key in ("model", "dataloader.test.mapper"):
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(
                f"{name} has no {key}: the predictor wants a lazy config with model and "
                "dataloader.test.mapper."
            )
    return cfg


def _init_options(cfg: DictConfig) -> LoadOptions:
    """How the config wants checkpoints to be loaded."""
    options = OmegaConf.select(cfg, "train.init_options")
    values = OmegaConf.to_container(options) if isinstance(options, DictConfig) else {}
    return make_options("train.init_options.", **values)


def _amp_dtype(amp: bool | str | torch.dtype, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision; None for full precision."""
    if amp is False or amp is None:
        return None
    if amp is True:
        poor = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if poor else torch.bfloat16
    dtype = getattr(torch, str(amp).removeprefix("torch."), None)
    if dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(f"amp={amp}: give True, False, 'float16' or 'bfloat16'.")
    return dtype


def _finished(value: Any) -> Any:
    """A part of a model's output on the CPU, half precision made float32."""
    if isinstance(value, Instances):
        fields = {name: _finished(field) for name, field in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if isinstance(value, Boxes):
        return Boxes(_finished(value.tensor))
    if isinstance(value, torch.Tensor):
        value = value.to("cpu")
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return value.to("cpu") if hasattr(value, "to") else value
