"""A classifier from a lazy config and weights: images or videos in, scores of classes out."""

import copy
import functools
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from ..d2.evaluation import inference_context
from ..data.classification.image_mapper import ImageMapper
from ..data.video.frame_stack import FrameStack
from ..data.video.transforms import ShortSideResize, ThreeCrops
from ..errors import ConfigError, DataError, UserError
from .class_names import find_metadata
from .classifier_inputs import InputMaker, Scorer
from .images import image_to_rgb, read_rgb
from .memory import is_out_of_memory
from .model_check import explain_misfit
from .pipeline import batched_map, ordered_map
from .predictor_setup import as_config, is_classifier_config, load_model

__all__ = ["ClassScore", "ClassifierPredictor"]

logger = logging.getLogger(__name__)

_WINDOW = 4  # batches' worth of items that are held while batches fill


class ClassScore(NamedTuple):
    """A class with its score.

    Attributes:
        number: of the class.
        name: of the class; its number where names are not known.
        score: from 0 to 1; those of all classes add up to 1.
    """

    number: int
    name: str
    score: float


class ClassifierPredictor:
    """A classifier from a lazy config and weights, for single images or videos, and many of them.

        predictor = ClassifierPredictor("projects/.../config.py", "output/model_final.pth")
        for found in predictor.top(predictor("photo.jpg"), 3):
            print(found.name, found.score)

    The config's `dataloader.test.mapper` prepares what is classified, as it does in the evaluation.
    A classifier of images takes

    - a path of an image file, turned as its EXIF orientation says;
    - a PIL image, turned likewise;
    - an array uint8 [H, W, 3] in `array_format`, by default BGR as of `Predictor`; [H, W],
      [H, W, 1] and [H, W, 4] as there.

    A classifier of videos takes

    - a path of a video file;
    - a path of a folder with a picture for each frame;
    - an array uint8 [T, H, W, 3] in `array_format`, or a sequence of images as above: its frames.

    For each it returns {"scores": float32 Tensor[C]}, on the CPU, which add up to 1; of videos the
    mean over the test's clips and crops. `top` makes names of it.

    Meant for one thread; several predictors may work in several threads.

    Attributes:
        cfg: the config as it was used, overrides applied.
        weights: the checkpoint's file.
        model: the module, in eval mode.
        device: where it runs.
        mapper: that of cfg.dataloader.test.
        takes_videos: whether it classifies videos, and not images.
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
        """Build the model and load its weights; arguments and errors are those of `Predictor`.

        Where the checkpoint names its classes, as those of `train_classifier.py` do, no data set
        is needed.
        """
        if array_format not in ("BGR", "RGB"):
            raise ConfigError(f"array_format={array_format!r}: give 'BGR' or 'RGB'.")
        self.array_format = array_format
        cfg = as_config(config, overrides)
        if not is_classifier_config(cfg):
            raise ConfigError(
                "The config has no dataloader.pixel_mean, so it is no classifier's: use "
                "iwin_d2.Predictor in place of ClassifierPredictor."
            )
        loaded = load_model(cfg, weights, device, amp)
        self.cfg, self.weights, self.device = loaded.cfg, loaded.weights, loaded.device
        self.model, self.mapper = loaded.model, loaded.mapper
        self.takes_videos = getattr(self.mapper, "unit", "image") == "video"
        if self.takes_videos:
            _resize_early(self.mapper)
        self._amp_dtype, self._checkpoint_metadata = loaded.amp_dtype, loaded.metadata
        data = cfg.dataloader
        make_inputs = InputMaker(
            data.pixel_mean, data.pixel_std, self.model.num_classes, self.device
        )
        self._scorer = Scorer(self.model, make_inputs)

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes, by class number: from the checkpoint, else from the data set
        of the config, read at the first use; None, with a warning, where they are not known.
        """
        metadata = self._checkpoint_metadata or find_metadata(self.cfg)
        names = metadata.get("classes") if metadata is not None else None
        if names and len(names) != self.model.num_classes:
            logger.warning(
                "%d names of classes are known, but the model has %d: classes are numbers.",
                *(len(names), self.model.num_classes),
            )
            return None
        return list(names) if names else None

    def top(self, output: Mapping[str, Any], count: int = 5) -> list[ClassScore]:
        """The classes of the highest scores, the highest first.

        Args:
            output: what the predictor returned.
            count: how many; all where there are fewer.

        Raises:
            ConfigError: it is the output of another model, or `count` is none.
        """
        if "scores" not in output:
            raise ConfigError("The output has no scores: it is no classifier's.")
        if count < 1:
            raise ConfigError(f"top({count}): give a number of classes, 1 or more.")
        scores = output["scores"]
        # Of equal scores the lower number first, on every machine.
        order = torch.sort(scores, descending=True, stable=True).indices[:count].tolist()
        names = self.class_names
        return [ClassScore(n, names[n] if names else str(n), float(scores[n])) for n in order]

    def __call__(self, source) -> dict[str, Tensor]:
        """Classify one image or video; see the class for what that may be.

        Raises:
            DataError: it is none, or cannot be read.
        """
        return self.batch([source])[0]

    def batch(self, sources: Sequence) -> list[dict[str, Tensor]]:
        """Classify a list, with as few passes of the model as `stream` needs.

        Raises:
            DataError: one cannot be read.
        """
        return list(self.stream(sources, batch_size=max(len(sources), 1), workers=0))

    def stream(
        self, sources: Iterable, batch_size: int = 8, workers: int = 2
    ) -> Iterator[dict[str, Tensor]]:
        """Classify many, in batches; yields an output for each, in their order.

        At most 5 * batch_size + workers are in memory, as they are prepared for the model.

        Args:
            sources: may be an endless iterator.
            batch_size: the most in one pass of the model; those of one size share it.
            workers: threads that read; 0 for none.

        Raises:
            DataError: one cannot be read; what came before has been yielded.
        """
        prepared = ordered_map(self.prepare, sources, workers, batch_size + workers)
        for _, output in self.predict_stream(prepared, batch_size):
            yield output

    def predict_stream(
        self, items: Iterable, batch_size: int, get_input: Callable = lambda item: item
    ) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """Classify prepared items in batches; yields (item, output) in their order.

        Args:
            items: whatever holds a model input.
            batch_size: the most in one pass of the model.
            get_input: takes the model input out of an item.
        """
        key = "video" if self.takes_videos else "image"
        return batched_map(
            lambda batch: self.predict_inputs([get_input(item) for item in batch]),
            items,
            key=lambda item: tuple(get_input(item)[key].shape),
            batch_size=batch_size,
            window=_WINDOW * batch_size if batch_size > 1 else 1,
        )

    def prepare(self, source, array_format: str | None = None) -> dict[str, Any]:
        """Read an image or video and make the model's input of it; may be called in any thread.

        Args:
            source: as for the predictor itself.
            array_format: of this array, if it is not the predictor's.

        Returns:
            "image", uint8 Tensor[3, H, W], or "video", uint8 Tensor[views, 3, T, H, W].

        Raises:
            DataError: it is none, or cannot be read or augmented.
        """
        path = os.fspath(source) if isinstance(source, (str, PathLike)) else None
        array_format = array_format or self.array_format
        kind = "video" if self.takes_videos else "image"
        try:
            if path is not None:
                return self._map_file(path, kind)
            if self.takes_videos:
                return self.prepare_clip(_frames(source, array_format))
            return self._map_pixels(image_to_rgb(source, array_format))
        except UserError as error:
            # The mapper speaks of a data set, which there is none of here.
            raise DataError(re.sub(r"^(image|video) (id )?0: ", "", error.sentence)) from error
        except Exception as error:  # of augmentations, which can be anybody's
            raise DataError(
                f"{path or f'The {kind}'} cannot be prepared for the model "
                f"({type(error).__name__}: {error}): check dataloader.test.mapper."
            ) from error

    def prepare_clip(
        self, frames: Sequence[Tensor], sampler: Callable[[int], np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Make a video model's input of frames in memory.

        Args:
            frames: uint8 Tensor[3, H, W] each, RGB.
            sampler: which of them make clips; the test's if None.

        Raises:
            DataError: there is none.
            ConfigError: the mapper is none that frames can be given to.
        """
        if not len(frames):
            raise DataError("There are no frames to classify: give at least one.")
        if not hasattr(self.mapper, "open_video"):
            raise ConfigError(
                f"{type(self.mapper).__name__}, the config's dataloader.test.mapper, reads videos "
                "in its own way: give a path."
            )
        mapper = copy.copy(self.mapper)
        mapper.open_video = lambda path, num_threads=1: FrameStack(frames)
        mapper.sampler = sampler or mapper.sampler
        return mapper({"file_name": "The clip", "image_id": 0})

    def shrink(self, frame: Tensor) -> Tensor:
        """A frame of a video, uint8 Tensor[3, H, W], as small as the mapper makes it at first."""
        resize = getattr(self.mapper, "resize", None)
        return frame if resize is None else resize(frame)

    def predict_inputs(self, inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Classify one batch of prepared inputs.

        Args:
            inputs: as `prepare` makes them, of one size.

        Returns:
            {"scores": float32 Tensor[C]} of each, on the CPU.

        Raises:
            ConfigError: the memory does not suffice, or the model cannot take its input.
        """
        enabled = self._amp_dtype is not None
        try:
            with (
                torch.no_grad(),
                inference_context(self._scorer),
                torch.autocast(self.device.type, dtype=self._amp_dtype, enabled=enabled),
                explain_misfit(self.model),
            ):
                outputs = self._scorer(inputs)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            shape = inputs[0]["video" if self.takes_videos else "image"].shape
            raise ConfigError(
                f"{self.device} has too little memory to classify {len(inputs)} inputs of shape "
                f"{list(shape)} together: lower the batch size, or of videos model.clips_at_once."
            ) from error
        return [{"scores": output["scores"].float().cpu()} for output in outputs]

    def _map_file(self, path: str, kind: str) -> dict[str, Any]:
        """What the config's mapper makes of a file."""
        if not os.path.lexists(path):
            raise DataError(f"There is no {kind} {path}: correct the path.")
        return self.mapper({"file_name": path, "image_id": 0})

    def _map_pixels(self, pixels: np.ndarray) -> dict[str, Any]:
        """What the config's mapper would make of a file that holds these pixels, RGB [H, W, 3]."""
        if type(self.mapper).__call__ is ImageMapper.__call__:
            image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
            for augmentation in self.mapper.augmentations:
                image = augmentation(image)
            return {"image": image}
        # It works in a way of its own: give it such a file.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.bmp"
            Image.fromarray(pixels).save(path)
            return self._map_file(str(path), "image")


def _resize_early(mapper: Any) -> None:
    """Have frames made small when they are read where the first transform would do it to clips.

    So the many frames of a video's test views are never held in full size; the result is the same.
    """
    transforms = getattr(mapper, "transforms", None)
    if transforms and getattr(mapper, "resize", mapper) is None:
        first = transforms[0]
        if isinstance(first, (ShortSideResize, ThreeCrops)):
            mapper.resize = ShortSideResize(first.size)


def _frames(source: Any, array_format: str) -> list[Tensor]:
    """Frames that somebody has in memory: uint8 Tensor[3, H, W] each, RGB."""
    stacked = isinstance(source, np.ndarray) and source.ndim == 4
    if not stacked and not isinstance(source, (list, tuple)):
        single = isinstance(source, (np.ndarray, Image.Image))
        what = "an image" if single else f"of type {type(source).__name__}"
        raise DataError(
            f"The model classifies videos, and this is {what}: give the path of a video or of a "
            "folder of frames, an array uint8 [T, H, W, 3], or a list of images."
        )
    frames = [_read(image, array_format) for image in source]
    return [torch.from_numpy(np.array(f, order="C")).permute(2, 0, 1) for f in frames]


def _read(image: Any, array_format: str) -> np.ndarray:
    if isinstance(image, (str, PathLike)):
        return read_rgb(image)
    return image_to_rgb(image, array_format)
