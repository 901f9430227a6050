"""Predictions on image files: drawn, and as COCO results."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..checkpoint import Checkpointer
from ..d2.config import instantiate
from ..d2.data import DatasetCatalog, MetadataCatalog
from ..d2.data.detection_utils import read_image
from ..d2.evaluation import inference_context, instances_to_coco_json
from ..d2.utils.visualizer import Visualizer
from ..errors import CheckpointError, ConfigError, DataError, UserError
from ..files import atomic_write
from .cli import pick_device

__all__ = [
    "Predictor",
    "check_no_input_overwritten",
    "find_images",
    "find_metadata",
    "picture_names",
    "predict_files",
]

logger = logging.getLogger(__name__)

_LEGIBLE = (
    640  # pixels of the longer side: smaller pictures are enlarged, or labels would hide them
)


class Predictor:
    """A detector from a lazy config and weights, for image files.

    Images are read and augmented exactly as cfg.dataloader.test.mapper does it.
    """

    def __init__(self, cfg, weights: str, device: str | None = None):
        """Build the model and load its weights.

        Args:
            cfg: a config with model, dataloader.test.mapper and train.device.
            weights: a checkpoint file.
            device: where to run; None takes train.device.

        Raises:
            CheckpointError: if there are no weights, or they do not fit.
            ConfigError: for an unknown device.
        """
        if not weights:
            raise CheckpointError("No weights: give --weights FILE, a checkpoint of this config.")
        self.model: nn.Module = instantiate(cfg.model).to(pick_device(device or cfg.train.device))
        Checkpointer(self.model).load(weights, checkpointables=[])
        self.mapper = instantiate(cfg.dataloader.test.mapper)

    @torch.no_grad()
    def __call__(self, path: str | Path, image_id: int = 0):
        """Predict one file.

        Returns:
            The image as RGB, H x W x 3, and its Instances on the CPU, in pixels of that image.

        Raises:
            DataError: if it is no image that can be read.
        """
        image = _read_rgb(path)
        height, width = image.shape[:2]
        record = {
            "file_name": str(path),
            "image_id": image_id,
            "height": height,
            "width": width,
        }
        with inference_context(self.model):
            (output,) = self.model([self.mapper(record)])
        return image, output["instances"].to("cpu")


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    metadata=None,
    threshold: float = 0.5,
) -> tuple[list[dict], list[str]]:
    """Predict files, draw each into `output`, write predictions.json there.

    Pictures of small images are enlarged; predictions.json is in pixels of the file.

    Args:
        predictor: maps a file to an RGB image and Instances.
        paths: the files; those that cannot be read are skipped.
        output: an existing folder.
        metadata: for class names and the data set's category ids.
        threshold: predictions with a lower score are left out.

    Returns:
        The records of predictions.json, and a sentence for each skipped file.
    """
    to_dataset_id = _dataset_ids(metadata)
    records, skipped = [], []
    for image_id, (path, name) in enumerate(zip(paths, picture_names(paths)), start=1):
        try:
            image, instances = predictor(path, image_id)
        except DataError as error:
            skipped.append(error.sentence)
            continue
        instances = instances[instances.scores >= threshold]
        scale = max(1.0, _LEGIBLE / max(image.shape[:2]))
        drawing = Visualizer(image, metadata, scale).draw_instance_predictions(instances)
        _write_picture(drawing.get_image(), output / name)
        found = instances_to_coco_json(instances, image_id)
        for record in found:
            record["category_id"] = to_dataset_id.get(record["category_id"], record["category_id"])
            record["file_name"] = str(path)
        records += found
        logger.info("%s: %d predictions, drawn in %s", path, len(found), output / name)
    with atomic_write(output / "predictions.json", "w") as file:
        json.dump(records, file)
    return records, skipped


def find_images(inputs: Iterable[str]) -> list[Path]:
    """The files among the inputs and the image files in the folders among them, each once.

    Raises:
        DataError: for an input that does not exist, and for a folder without images.
    """
    Image.init()
    endings = set(Image.EXTENSION)
    paths: dict[Path, Path] = {}  # by resolved path
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in endings and p.is_file())
            if not found:
                raise DataError(f"There is no image file in the folder {path}.")
        elif path.exists():
            found = [path]
        else:
            raise DataError(f"There is no file or folder {path}: correct --input.")
        for item in found:
            paths.setdefault(item.resolve(), item)
    return list(paths.values())


def picture_names(paths: Sequence[Path]) -> list[str]:
    """A file name `<stem>.png` for each path, different for all, also where case makes none."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def check_no_input_overwritten(paths: Sequence[Path], output: Path) -> None:
    """Raise ConfigError if a picture to be drawn would replace one of the inputs."""
    inputs = {path.resolve() for path in paths}
    for name in picture_names(paths):
        if (output / name).resolve() in inputs:
            raise ConfigError(
                f"Drawing into {output} would overwrite the input {output / name}: "
                "set --output to another folder."
            )


def find_metadata(cfg):
    """The metadata of the config's test or training set, loading it if that is what it takes.

    None, with a warning, where neither is at hand: classes are then numbers.
    """
    for part in ("test", "train"):
        try:
            name = instantiate(cfg.dataloader[part].dataset.names)
            name = name if isinstance(name, str) else name[0]
            metadata = MetadataCatalog.get(name)
            if not metadata.get("thing_classes"):
                DatasetCatalog.get(name)  # many sets fill in their metadata when they are loaded
            if metadata.get("thing_classes"):
                return metadata
        # Whatever keeps a data set from being read must not keep a demo from running.
        except Exception as error:
            logger.debug("No class names from the %s set: %s", part, error)
    logger.warning("No class names: the config's data sets cannot be read. Classes are numbers.")
    return None


def _dataset_ids(metadata) -> dict[int, int]:
    mapping = metadata.get("thing_dataset_id_to_contiguous_id") if metadata is not None else None
    return {contiguous: dataset_id for dataset_id, contiguous in (mapping or {}).items()}


def _read_rgb(path: str | Path) -> np.ndarray:
    try:
        return np.asarray(read_image(str(path), format="RGB"))
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of these
        raise DataError(f"{path} cannot be read as an image ({error}).") from error


def _write_picture(image: np.ndarray, path: Path) -> None:
    with atomic_write(path) as file:
        Image.fromarray(image).save(file, format="PNG")
