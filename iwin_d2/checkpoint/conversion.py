"""Writing checkpoints anew, in this project's names."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..errors import CheckpointError, ConfigError
from ..files import atomic_write
from .class_change import is_patch_embedding
from .download import locate
from .fitting import Fit, fit
from .inflation import inflate as inflate_patches
from .inflation import inflation_note
from .layouts import is_backbone_name
from .options import LoadOptions, make_options
from .pretrained import report_of
from .provenance import STAMP, make_stamp
from .reading import first_line, read_checkpoint
from .report import Report, some
from .shapes import expected_shapes
from .target import Target, unwrap
from .weights import Weights, recognise

__all__ = ["convert_checkpoint"]


def convert_checkpoint(
    source: str | os.PathLike,
    destination: str | os.PathLike | None = None,
    *,
    part: str = "all",
    inflate: int | None = None,
    model: nn.Module | None = None,
    base_url: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Report:
    """Write a checkpoint's weights in this project's names.

    Detectors get the names of Detectron2's models, segmenters those of this project's, classifiers
    and backbones keep theirs. Nothing may be left over or missing: to load it into the given model
    (see `load_pretrained`), or else of a published model of that kind.

    Args:
        source: as for `load_pretrained`.
        destination: the file to write, whole or not at all; None writes none.
        part: "backbone" for an Iwin backbone by itself.
        inflate: frames of a patch (2 as published) to make the backbone of an image model one for
            video, by itself, in the names of `IwinTransformer3D`. For the model of a video that
            is given by `model`, it happens anyway.
        model: one that the weights are for, and whose names they get.
        base_url: as for `load_pretrained`.
        cache_dir: as for `load_pretrained`.

    Returns:
        what was converted, missing and unexpected.

    Raises:
        CheckpointError: the file cannot be had or read, has something without a place, or
            `destination` cannot be written.
        ConfigError: `part` or `inflate` makes no sense.
    """
    options = make_options(part=part)
    if inflate is not None and (inflate < 1 or model is not None):
        raise ConfigError(
            f"inflate={inflate} makes no sense: give the frames of a patch, such as 2, and no "
            "model (image models start video models, inflated, as they are)."
        )
    if destination is not None:
        _check_folder(destination)
    path = locate(source, base_url=base_url, cache_dir=cache_dir)
    weights = recognise(read_checkpoint(path), path)
    if model is not None:
        found = fit(weights, Target.of(unwrap(model)), options)
    elif inflate is not None:
        found = _inflated(weights, inflate)
    else:
        found = _as_published(weights, options)
    if destination is not None:
        _write(_content(weights, found), destination)
    return report_of("Converted", weights, found)


def _as_published(weights: Weights, options: LoadOptions) -> Fit:
    """Find out whether a file has the tensors of a published kind of model, and no others.

    What is in this project's own names can be of a model of any kind, and has its place.
    """
    if options.part == "backbone":
        return _backbone(weights)
    found = Fit(tensors=dict(weights.tensors), origins=dict(weights.origins))
    last_stage = f"layers.{len(weights.architecture.depths) - 1}."
    last_depthwise = any(f"{last_stage}blocks.0.dwconv." in name for name in weights.tensors)
    expected = None
    if weights.layout.is_published:
        expected = expected_shapes(weights.architecture, last_depthwise=last_depthwise)
    if expected is not None:
        _check_complete(weights, expected)
    if weights.unplaced:
        reason = f": {weights.layout.lacking}" if weights.layout.lacking else ""
        names = some(sorted(weights.unplaced))
        raise CheckpointError(
            f"{weights.path} is {weights.architecture}, of which {len(weights.unplaced)} tensors "
            f"have no place here ({names}){reason}; convert its backbone alone with part=backbone "
            "(--part backbone)."
        )
    return found


def _check_complete(weights: Weights, expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError where names are not those of a published model of that kind."""
    missing = [name for name in expected if name not in weights.tensors]
    others = [name for name in weights.tensors if name not in expected]
    if missing or (others and not weights.unplaced):
        faults = [f"lacks {len(missing)} of its tensors ({some(missing)})"] if missing else []
        faults += [f"has {len(others)} that it has not ({some(others)})"] if others else []
        raise CheckpointError(
            f"{weights.path} is not quite {weights.architecture}, the published model most like "
            f"it: it {' and '.join(faults)}; give the model itself, or correct the file."
        )


def _backbone(weights: Weights) -> Fit:
    """The backbone of a file, in the names of an IwinTransformer."""
    if weights.prefix is None:
        raise CheckpointError(
            f"{weights.path} has no Iwin backbone: it has {some(weights.origins.values())}."
        )
    found = Fit()
    for name, tensor in weights.tensors.items():
        if is_backbone_name(name, weights.prefix):
            ours = name.removeprefix(weights.prefix)
            found.tensors[ours], found.origins[ours] = tensor, weights.origins[name]
        else:
            found.unused[weights.origins[name]] = "not of the backbone"
    found.unused.update(dict.fromkeys(weights.unplaced, "not of the backbone"))
    return found


def _inflated(weights: Weights, frames: int) -> Fit:
    """The backbone of an image model in the names of an IwinTransformer3D."""
    if weights.is_of_video:
        raise CheckpointError(
            f"{weights.path} is {weights.architecture}, whose patches hold several frames "
            "already: convert it without inflate."
        )
    found = _backbone(weights)
    for name in [name for name in found.tensors if re.match(r"norm\d\.", name)]:
        del found.tensors[name]
        found.unused[found.origins.pop(name)] = "not of a backbone for video"
    for name in ("norm.weight", "norm.bias"):
        if (theirs := f"{weights.prefix}{name}") in weights.tensors:
            found.tensors[name] = weights.tensors[theirs]
            found.origins[name] = weights.origins[theirs]
            del found.unused[weights.origins[theirs]]
    found.tensors = {
        name: inflate_patches(tensor, frames) if is_patch_embedding(name) else tensor
        for name, tensor in found.tensors.items()
    }
    found.notes.append(inflation_note(weights.path, frames))
    return found


def _content(weights: Weights, found: Fit) -> dict[str, Any]:
    """What a converted file holds."""
    provenance = weights.provenance
    stamp = make_stamp(
        provenance.num_heads,
        provenance.window_size,
        version=__version__,
        published=provenance.published and provenance.published.name,
    )
    # Views of larger storages would bring these along.
    tensors = {name: tensor.clone() for name, tensor in found.tensors.items()}
    content: dict[str, Any] = {"model": tensors, STAMP: stamp}
    if weights.classes:
        content["metadata"] = weights.classes
    return content


def _check_folder(destination: str | os.PathLike) -> None:
    """Raise CheckpointError where there is no folder for a file."""
    folder = os.path.dirname(os.path.abspath(destination))
    if not os.path.isdir(folder) or os.path.isdir(destination):
        fault = "is a folder" if os.path.isdir(destination) else f"has no folder {folder}"
        raise CheckpointError(f"{os.fspath(destination)} {fault}: name a file to write.")


def _write(content: dict[str, Any], destination: str | os.PathLike) -> None:
    try:
        with atomic_write(destination) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch.save makes this of a full disk
        raise CheckpointError(
            f"{os.fspath(destination)} could not be written ({first_line(error)}): free some "
            "space, or name another file."
        ) from error
