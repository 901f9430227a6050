"""A model from a lazy config and weights: images in, Instances or label maps out."""

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
from torch import Tensor, nn

from ..d2.data import DatasetMapper
from ..d2.data import transforms as T
from ..d2.evaluation import inference_context
from ..data.mapper import DetectionMapper
from ..data.semantic_segmentation import SemSegMapper
from ..errors import ConfigError, DataError, UserError
from ..modeling.segmentation_inference import SegmenterInference, is_segmenter, predicted_labels
from .class_names import find_metadata
from .images import image_to_rgb, read_rgb
from .model_check import explain_misfit
from .outputs import is_segmentation, on_cpu, without_scores
from .pipeline import batched_map, ordered_map
from .predictor_setup import as_config, is_classifier_config, load_model
from .tta import as_evaluated

__all__ = ["Predictor"]

logger = logging.getLogger(__name__)

# Mappers whose whole work at test time is known: the image format, then the augmentations.
_PLAIN = (DatasetMapper.__call__, DetectionMapper.__call__, SemSegMapper.__call__)
_WINDOW = 4  # batches' worth of images that are held while batches fill


class Predictor:
    """A model from a lazy config and weights, for single images, lists and streams of them.

        predictor = Predictor("projects/.../config.py", "output/model_final.pth")

        instances = predictor("photo.jpg")["instances"]  # of a detector
        names = [predictor.class_names[index] for index in instances.pred_classes]

        labels = predictor.labels(predictor("photo.jpg"))  # of a semantic segmenter
        names = [predictor.class_names[index] for index in labels.unique()]

    Images are read and augmented exactly as the config's `dataloader.test.mapper` does it. An image
    is one of

    - a path of an image file, turned as its EXIF orientation says;
    - a PIL image, turned likewise;
    - an array uint8 [H, W, 3] in `array_format`, by default BGR: what OpenCV reads and what
      Detectron2's DefaultPredictor takes. Arrays [H, W] and [H, W, 1] are grey; of [H, W, 4], the
      fourth channel is left out.

    For each image the model's output is returned, on the CPU and in pixels of the image given:

    - of a detector {"instances": Instances}: pred_boxes, scores, pred_classes and, of a model with
      masks, pred_masks, bool [N, H, W];
    - of a semantic segmenter {"sem_seg": float32 [C, H, W]}, a score for each class, or
      {"sem_seg_labels": integers [H, W]}, class numbers: the former is C numbers a pixel, so that
      sliding windows, and streams unless they are asked to, do not keep it. `labels` takes either.

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
        cfg = as_config(config, overrides)
        if is_classifier_config(cfg):
            raise ConfigError(
                "The config is a classifier's: use iwin_d2.ClassifierPredictor in place of "
                "Predictor."
            )
        loaded = load_model(cfg, weights, device, amp)
        self.cfg, self.weights, self.device = loaded.cfg, loaded.weights, loaded.device
        self.model, self.mapper = loaded.model, loaded.mapper
        self._amp_dtype, self._checkpoint_metadata = loaded.amp_dtype, loaded.metadata
        self._evaluated = as_evaluated(self.model, OmegaConf.select(self.cfg, "train"))
        self._labelling = _without_scores(self._evaluated)

    @functools.cached_property
    def metadata(self):
        """What is known of the classes (`thing_classes`, ...): from the checkpoint, else from the
        data sets of the config, read at the first use; None, with a warning, where nothing is.
        """
        return self._checkpoint_metadata or find_metadata(self.cfg)

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes, by class number; None where they are not known."""
        kinds = ["thing_classes", "stuff_classes"]
        if is_segmenter(self.model):
            kinds.reverse()  # data sets of both kinds have names of both
        found = (self.metadata.get(kind) for kind in kinds if self.metadata is not None)
        names = next(filter(None, found), None)
        return list(names) if names else None

    @staticmethod
    def labels(output: Mapping[str, Any]) -> Tensor:
        """The class numbers in the output of a semantic segmenter: integers [H, W].

        Raises:
            ConfigError: it is the output of another model.
        """
        if not is_segmentation(output):
            raise ConfigError("The output is a detector's, which has no label map.")
        return predicted_labels(output)

    def __call__(self, image) -> dict[str, Any]:
        """Predict one image; returns the model's output for it.

        Raises:
            DataError: it is no image, or cannot be read.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence) -> list[dict[str, Any]]:
        """Predict a list of images, with as few passes of the model as `stream` needs.

        Returns:
            an output for each, with all that the model gives: of segmenters, C numbers a pixel.

        Raises:
            DataError: one is no image, or cannot be read.
        """
        count = max(len(images), 1)
        return list(self.stream(images, batch_size=count, workers=0, keep_scores=True))

    def stream(
        self, images: Iterable, batch_size: int = 8, workers: int = 2, keep_scores: bool = False
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
            keep_scores: of semantic segmenters, give "sem_seg" where the model does, and not
                "sem_seg_labels" made of it: C numbers a pixel, of up to 4 * batch_size images.

        Raises:
            DataError: one is no image, or cannot be read; what came before has been yielded.
        """
        prepared = ordered_map(self.prepare, images, workers, batch_size + workers)
        for _, output in self.predict_stream(prepared, batch_size, keep_scores=keep_scores):
            yield output

    def predict_stream(
        self,
        items: Iterable,
        batch_size: int,
        get_input=lambda item: item,
        keep_scores: bool = False,
    ):
        """Predict prepared items in batches; yields (item, output) in their order.

        Args:
            items: whatever holds a model input.
            batch_size: the most in one pass of the model.
            get_input: takes the model input out of an item.
            keep_scores: as for `stream`.
        """
        return batched_map(
            lambda batch: self.predict_inputs([get_input(item) for item in batch], keep_scores),
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
            raise DataError(re.sub(r"^image (id )?0: ", "", error.sentence)) from error
        except Exception as error:  # of augmentations, which can be anybody's
            raise DataError(
                f"{path or 'The image'} cannot be prepared for the model ({type(error).__name__}: "
                f"{error}): check the augmentations in dataloader.test.mapper."
            ) from error

    def predict_inputs(
        self, inputs: list[dict[str, Any]], keep_scores: bool = True
    ) -> list[dict[str, Any]]:
        """Predict one batch of prepared model inputs; the outputs are on the CPU, in float32.

        Args:
            inputs: as `prepare` makes them.
            keep_scores: as for `stream`.

        Raises:
            ConfigError: the memory does not suffice, or the model cannot take its input.
        """
        enabled = self._amp_dtype is not None
        try:
            with (
                torch.no_grad(),
                inference_context(self._evaluated),
                torch.autocast(self.device.type, dtype=self._amp_dtype, enabled=enabled),
                explain_misfit(self.model),
            ):
                if keep_scores:
                    outputs = self._evaluated(inputs)
                else:
                    outputs = [without_scores(output) for output in self._labelling(inputs)]
        except torch.OutOfMemoryError as error:
            height, width = (max(item["image"].shape[axis] for item in inputs) for axis in (1, 2))
            raise ConfigError(
                f"{self.device} has too little memory to predict {len(inputs)} images of up to "
                f"{width} x {height} pixels together: lower the batch size, or what the "
                "augmentations of dataloader.test.mapper enlarge images to"
                f"{self._other_savings()}."
            ) from error
        return [{key: on_cpu(value) for key, value in output.items()} for output in outputs]

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
        if hasattr(self._evaluated, "view_sizes"):
            sizes = self._evaluated.view_sizes(sizes[0])
        return tuple(-(-side // step) * step for size in sizes for side in size)

    def _other_savings(self) -> str:
        """What else helps where memory does not suffice."""
        savings = ""
        if len(getattr(self._evaluated, "views", ())) > 1:
            savings += ", or train.test_time_augmentation.scales"
        if is_segmenter(self.model) and not getattr(self._evaluated, "window", None):
            savings += ", or set train.sliding_window.enabled=True"
        return savings


def _without_scores(evaluated: nn.Module) -> nn.Module:
    """The same, but a segmenter gives labels and never holds an image's scores, where it can."""
    if not isinstance(evaluated, SegmenterInference):
        return evaluated
    labelling = copy.copy(evaluated)  # with the same model inside
    labelling.labels_only = True
    return labelling
