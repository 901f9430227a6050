"""A checkpoint file's weights in this project's names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from .architecture import Architecture, Shapes, describe
from .layouts import (
    IMAGENET,
    Layout,
    backbone_prefixes,
    find_layout,
    is_backbone_name,
    is_time_embedding,
)
from .provenance import Provenance, class_names, trace
from .report import some

__all__ = ["PLACES", "Weights", "recognise"]

# Where files have the weights of a model; else they are a bare state dict.
PLACES = ("state_dict", "model")
# Left by wrappers around the model that was saved.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Weights:
    """The weights in a file.

    Attributes:
        path: the file.
        layout: the family of its names.
        tensors: by this project's names; the backbone's lie under `prefix`.
        origins: what the file calls each of them.
        unplaced: tensors, by the file's names, that this project has no name for.
        prefix: what stands before the backbone's names; None without an Iwin backbone.
        architecture: what model they are of.
        provenance: where they come from.
        classes: the names of the classes, as `class_names` gives them.
    """

    path: str
    layout: Layout
    tensors: dict[str, Tensor]
    origins: dict[str, str]
    unplaced: dict[str, Tensor]
    prefix: str | None
    architecture: Architecture
    provenance: Provenance
    classes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def shapes(self) -> Shapes:
        """Of all tensors, by this project's names or else by the file's."""
        return _shapes({**self.unplaced, **self.tensors})

    @property
    def as_in_file(self) -> dict[str, Tensor]:
        """All tensors by the file's names."""
        return {**self.unplaced, **{self.origins[n]: tensor for n, tensor in self.tensors.items()}}

    @property
    def is_of_video(self) -> bool:
        """Whether its backbone is one for clips."""
        return self.prefix is not None and any(map(is_time_embedding, self.tensors))

    @property
    def is_pretrained(self) -> bool:
        """Whether other models start from it: a classifier, or a backbone alone."""
        if self.prefix is None:
            return False
        names = (*self.tensors, *self.unplaced)
        return self.layout is IMAGENET or all(is_backbone_name(n, self.prefix) for n in names)


def recognise(content: Any, path: str) -> Weights:
    """Find out what a file is, and give its weights this project's names.

    Args:
        content: what `read_checkpoint` returned.
        path: of the file, by which published ones are known, too.

    Raises:
        CheckpointError: it holds no weights, or such as cannot be taken.
    """
    tensors = _without_wrappers(_find_tensors(content, path))
    layout = find_layout(tensors)
    origins: dict[str, str] = {}
    unplaced = {}
    for name, tensor in tensors.items():
        new = layout.rename(name)
        if new is None:
            unplaced[name] = tensor
        elif new in origins:
            raise _twice(path, new, origins[new], name)
        else:
            origins[new] = name
    placed = {new: tensors[name] for new, name in origins.items()}
    shapes = _shapes({**unplaced, **placed})
    architecture = describe(shapes)
    return Weights(
        path=path,
        layout=layout,
        tensors=placed,
        origins=origins,
        unplaced=unplaced,
        prefix=next(iter(backbone_prefixes(placed)), None),
        architecture=architecture,
        provenance=trace(content, path, layout, architecture, shapes),
        classes=class_names(content),
    )


def _find_tensors(content: Any, path: str) -> dict[str, Tensor]:
    """The tensors of the model in a file, by the file's names."""
    found = []
    if isinstance(content, Mapping):
        places = [content.get(key) for key in PLACES]
        found = [place for place in places if isinstance(place, Mapping) and _has_arrays(place)]
        if not found and _has_arrays(content):
            found = [content]
    if not found:
        raise CheckpointError(
            f"{path} holds no model weights: give a .pth file with a state dict, bare or under the "
            "key 'model' or 'state_dict'."
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds the weights of two models, under the keys 'model' and 'state_dict': "
            "save the one that is meant by itself."
        )
    return {
        str(name): _tensor(value, str(name), path)
        for name, value in found[0].items()
        if _is_array(value)
    }


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _has_arrays(mapping: Mapping) -> bool:
    return any(_is_array(value) for value in mapping.values())


def _tensor(value: Tensor | np.ndarray, name: str, path: str) -> Tensor:
    """An array as a tensor whose values can be copied."""
    try:
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        plain = tensor.layout == torch.strided and not (
            tensor.is_meta or tensor.is_quantized or tensor.is_complex() or tensor.is_nested
        )
    except TypeError:  # of an array of objects or texts
        plain = False
    if not plain:
        raise CheckpointError(
            f"{path} holds {some([name])} as no plain tensor of numbers: save the model's state "
            "dict in a floating-point type."
        )
    return tensor


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DistributedDataParallel and torch.compile put before all names."""
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors


def _twice(path: str, name: str, first: str, second: str) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {some([name])} twice, as {some([first, second])}: save its model anew."
    )


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
