"""Detectors, segmenters and backbones as files of torch.export (.pt2) and ONNX (.onnx)."""

import importlib.util
import json
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from ..errors import ConfigError, DataError
from ..files import atomic_write
from ..modeling.export import ImagesToMaps, ImagesToScores, ImageToDetections
from .build import TRACEBACK_HINT, reason_of

__all__ = ["INFO", "PARTS", "check_export", "export_detector", "export_program"]

PARTS = ("backbone", "detector", "segmenter")
ENDINGS = (".pt2", ".onnx")
INFO = "iwin_d2.json"  # what is said of a file inside it; in ONNX a metadata entry of that name

# PyTorch takes a side that is traced as a symbol to be at least 2, that of the coarsest map, too.
MIN_SIDE = 65
_TRACED = (96, 128)  # height and width of the image that is traced: any would do
_ONNX_PACKAGES = ("onnx", "onnxscript")


def export_detector(
    model: nn.Module,
    path: str | PathLike,
    part: str = "backbone",
    class_names: Sequence[str] | None = None,
) -> None:
    """Write a detector or segmenter, or its backbone, to a file that runs without this package.

    The file is written whole or not at all. It holds `INFO`, a json with "part", "input_format"
    (the order of the channels) and "classes".

    Args:
        model: is not changed. The file is for the kind of device that it is on.
        path: the file, .pt2 or .onnx.
        part: "backbone", with its FPN (`ImagesToMaps`; whatever has a backbone), "detector"
            (`ImageToDetections`; two-stage detectors) or "segmenter" (`ImagesToScores`), which say
            what goes in and comes out.
        class_names: to be kept in the file.

    Raises:
        ConfigError: the path ends otherwise, a package is missing, or the model cannot be exported.
        DataError: the file cannot be written.
    """
    path = Path(path)
    check_export(path, part)
    onnx = path.suffix == ".onnx"
    # ONNX has non-maximum suppression in float32 alone.
    program = export_program(model, part, torch.float32 if onnx else torch.float64)
    info = json.dumps(
        {
            "part": part,
            "input_format": getattr(model, "input_format", None),
            "classes": None if class_names is None else list(class_names),
        }
    )
    content = _as_onnx(program, part, _output_names(model, part), info) if onnx else None
    try:
        with atomic_write(path) as file:
            if content is not None:
                file.write(content)
            else:
                torch.export.save(program, file, extra_files={INFO: info})
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or give "
            "another path."
        ) from error


def check_export(path: str | PathLike, part: str) -> None:
    """Raise ConfigError, before anything is done, if such a file cannot be made."""
    if part not in PARTS:
        raise ConfigError(f"part={part!r}: give {', '.join(PARTS[:-1])} or {PARTS[-1]}.")
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path} is neither {' nor '.join(ENDINGS)}: give the file that ending.")
    if path.suffix == ".onnx":
        missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"ONNX files need {' and '.join(missing)}: pip install 'iwin_d2[onnx]', or give "
                "the file the ending .pt2."
            )


def export_program(
    model: nn.Module, part: str = "backbone", nms_dtype: torch.dtype = torch.float64
) -> ExportedProgram:
    """Trace a detector or segmenter, or its backbone, by torch.export.

    Height and width may be anything from `MIN_SIDE` on; backbones and segmenters take any number of
    images.

    Args:
        model: is not changed.
        part: one of `PARTS`.
        nms_dtype: see `ImageToDetections`.

    Raises:
        ConfigError: the model cannot be exported; says why.
    """
    whole = part == "detector"
    if whole:
        module = ImageToDetections(model, nms_dtype)
    else:
        module = ImagesToScores(model) if part == "segmenter" else ImagesToMaps(model)
    channels, device = len(model.pixel_mean), model.pixel_mean.device
    sides = {"height": Dim("height", min=MIN_SIDE), "width": Dim("width", min=MIN_SIDE)}
    if whole:
        image = torch.rand(channels, *_TRACED, device=device) * 255
        shapes = {1: sides["height"], 2: sides["width"]}
    else:
        image = torch.rand(2, channels, *_TRACED, device=device) * 255
        shapes = {0: Dim("batch", min=2), 2: sides["height"], 3: sides["width"]}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about itself
        return _or_sentence(torch.export.export, module, (image,), dynamic_shapes=(shapes,))


def _as_onnx(program: ExportedProgram, part: str, outputs: list[str], info: str) -> bytes:
    """An ONNX file's content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        translated = _or_sentence(
            torch.onnx.export,
            program,
            dynamo=True,
            verbose=False,
            input_names=["image" if part == "detector" else "images"],
            output_names=outputs,
        )
    proto = translated.model_proto
    proto.metadata_props.add(key=INFO, value=info)
    return proto.SerializeToString()


def _output_names(model: nn.Module, part: str) -> list[str]:
    if part == "backbone":
        return list(model.backbone.output_shape())
    if part == "segmenter":
        return ["sem_seg"]
    masks = ["masks"] if model.roi_heads.mask_on else []
    return ["boxes", "scores", "classes", *masks]


def _or_sentence(export, *args, **kwargs):
    """Call an exporter of PyTorch; a ConfigError for whatever it cannot take."""
    try:
        return export(*args, **kwargs)
    except Exception as error:  # exporters raise all kinds of them
        raise ConfigError(
            f"PyTorch {torch.__version__} cannot export this model ({reason_of(error)}): take the "
            f"backbone alone, or the config's own parts where it replaces some {TRACEBACK_HINT}."
        ) from error
