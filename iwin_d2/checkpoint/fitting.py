"""Which tensor of a file goes where in a model, found out before any is copied."""

import re
from dataclasses import dataclass, field, replace

from torch import Tensor

from .architecture import CLASSIFIER
from .class_change import adapt_channels, is_class_tensor, is_patch_embedding, map_classes
from .inflation import inflate, inflation_note, interpolate_time
from .layouts import is_backbone_name, is_final_norm, is_time_embedding
from .misfits import check_heads, check_left_out, check_models, check_names, is_left_out
from .options import LoadOptions
from .target import Target
from .weights import Weights

__all__ = ["Fit", "fit"]

# Tensors that follow from the config, or that training alone reads: files may lack or have them.
_INCIDENTAL = re.compile(r"(.*\.)?(pixel_mean|pixel_std|cell_anchors\.\d+|num_batches_tracked)$")


@dataclass
class Fit:
    """What is to be loaded from a file into a model.

    Attributes:
        tensors: what goes into the model, by the model's names.
        origins: what the file calls it.
        anew: the model's names that keep what the model has, with the reason.
        unused: the file's names that go nowhere, with the reason.
        missing: the model's names that the file should have, and has not.
        unexpected: the file's names that the model should have, and has not.
        misshapen: the model's names with another shape in the file.
        notes: sentences on what should be known beside that.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    anew: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fit(
    weights: Weights, target: Target, options: LoadOptions | None = None, *, fill: bool = False
) -> Fit:
    """Find a place for everything, or say what has none; changes nothing.

    The whole file has to go into the model and has to fill it, except that

    - of a classifier or a backbone alone, and with `part="backbone"`, the backbone is taken, and
      the rest of the model stays as it is;
    - a model that is a backbone alone takes that of any file;
    - the backbone of an image model starts that of a video model, inflated;
    - stages that the model's backbone does not go as far as are not needed;
    - `options` say otherwise.

    Args:
        weights: of the file.
        target: the model.
        options: exceptions.
        fill: whether nothing of the model may stay as it is, as for evaluation. Options that start
            parts of it anew are then passed over: they were for training.

    Raises:
        CheckpointError: in one sentence, what does not fit.
    """
    options = _for_filling(options, weights, target) if fill and options else options
    matcher = _Matcher(weights, target, options or LoadOptions(), fill)
    check_models(weights, target, matcher.options, matcher.backbone_only, fill)
    check_left_out(weights, target, matcher.options)
    result = matcher.match()
    check_names(weights, target, result, fill)
    check_heads(weights, target, matcher.options, result)
    return result


def _for_filling(options: LoadOptions, weights: Weights, target: Target) -> LoadOptions:
    """The options without those that a training started with."""
    classes = options.classes
    if weights.architecture.num_classes == target.architecture.num_classes:
        classes = "same"  # what was trained has the model's own already
    return replace(options, part="all", classes="same" if classes == "new" else classes)


class _Matcher:
    """Finds a place for each tensor of a file, and a source for each of a model."""

    def __init__(self, weights: Weights, target: Target, options: LoadOptions, fill: bool):
        self.weights, self.target, self.options, self.fill = weights, target, options, fill
        pretrained = weights.is_pretrained and "" not in target.prefixes
        self.backbone_only = pretrained or target.is_backbone or options.part == "backbone"
        self.result = Fit()

    def match(self) -> Fit:
        weights, result = self.weights, self.result
        places = self._places()
        for place, name in places.items():
            self._place(place, weights.tensors[name], weights.origins[name])
        placed = set(places.values())
        for name in weights.tensors:
            if name not in placed:
                result.unused[weights.origins[name]] = "not of the backbone"
        for name in weights.unplaced:
            if self.backbone_only:
                result.unused[name] = "not of the backbone"
            elif is_left_out(name, self.options.leave_out):
                result.unused[name] = "left out"
            else:
                result.unexpected.append(name)
        for name in self.target.state:
            if name not in places and not _INCIDENTAL.match(name):
                self._keep(name)
        return result

    def _places(self) -> dict[str, str]:
        """Where each tensor belongs: the weights' names by the model's."""
        theirs, ours = self.weights.prefix, self.target.prefixes
        names = self.weights.tensors
        if self.backbone_only:
            of_backbone = () if theirs is None else names
            places = {
                f"{prefix}{name.removeprefix(theirs)}": name
                for name in of_backbone
                if is_backbone_name(name, theirs) or is_final_norm(name, theirs)
                for prefix in ours
            }
            # Only classifiers and backbones for video have a final norm.
            return {
                place: name
                for place, name in places.items()
                if place in self.target.state or not is_final_norm(name, theirs)
            }
        if theirs is None or theirs in ours or len(ours) != 1:
            return {name: name for name in names}
        return {
            ours[0] + name.removeprefix(theirs) if is_backbone_name(name, theirs) else name: name
            for name in names
        }

    def _place(self, name: str, tensor: Tensor, origin: str) -> None:
        """Note where a tensor of the file goes; `name` is the model's for its place."""
        result, fresh = self.result, self.target.state.get(name)
        if is_left_out(name, self.options.leave_out) and not (self.fill and fresh is not None):
            result.unused[origin] = "left out"
            if fresh is not None:
                result.anew[name] = "left out"
            return
        if fresh is None:
            if self.target.is_not_built(name):
                result.unused[origin] = "not built"
            elif not _INCIDENTAL.match(name):
                result.unexpected.append(name)
            return
        tensor = self._changed(name, tensor, fresh)
        if tensor.shape == fresh.shape:
            result.tensors[name], result.origins[name] = tensor, origin
        elif is_class_tensor(name) and self.options.classes == "new":
            result.anew[name] = result.unused[origin] = "other classes"
        else:
            shapes = f"{list(tensor.shape)} instead of {list(fresh.shape)}"
            result.misshapen[name] = f"{name} {shapes}"

    def _changed(self, name: str, tensor: Tensor, fresh: Tensor) -> Tensor:
        """A tensor with the classes, channels and frames that are asked for."""
        if is_class_tensor(name) and not isinstance(self.options.classes, str):
            mapped = map_classes(name, tensor, fresh, self.options.classes)
            return tensor if mapped is None else mapped
        if is_patch_embedding(name) and (tensor.dim(), fresh.dim()) == (4, 5):
            tensor = inflate(tensor, fresh.shape[2])
            self.result.notes.append(inflation_note(self.weights.path, fresh.shape[2]))
        if _is_of_other_length(name, tensor, fresh):
            tensor = interpolate_time(tensor, fresh.shape[2])
            self.result.notes.append(
                f"the time embedding is interpolated to {fresh.shape[2]} steps of time"
            )
        adapts = is_patch_embedding(name) and self.options.channels == "adapt"
        if adapts and tensor.dim() == fresh.dim() and tensor.shape[1] not in (0, fresh.shape[1]):
            return adapt_channels(tensor, fresh.shape[1])
        return tensor

    def _keep(self, name: str) -> None:
        """Note a tensor of the model that the file has none for."""
        if is_left_out(name, self.options.leave_out):
            self.result.anew[name] = "left out"
        elif self.backbone_only and not self.target.in_backbone(name):
            self.result.anew[name] = "not of the backbone"
        elif self.backbone_only and _is_output_norm(name) and self._is_classifier():
            self.result.anew[name] = "none in a classifier"
        elif self.backbone_only and is_time_embedding(name) and not self.weights.is_of_video:
            self.result.anew[name] = "none in an image model"
        elif self.backbone_only and self._is_final_norm(name):
            self.result.anew[name] = "none in the file's backbone"
        else:
            self.result.missing.append(name)

    def _is_final_norm(self, name: str) -> bool:
        """Whether a name is of the final norm, which classifiers all have."""
        prefixes = self.target.prefixes
        is_it = any(is_final_norm(name, prefix) for prefix in prefixes)
        return is_it and self.weights.architecture.task != CLASSIFIER

    def _is_classifier(self) -> bool:
        """Whether the file has no norms behind single stages."""
        return not any(_is_output_norm(name) for name in self.weights.tensors)


def _is_output_norm(name: str) -> bool:
    return bool(re.search(r"(^|\.)norm\d\.", name)) and ".blocks." not in name


def _is_of_other_length(name: str, tensor: Tensor, fresh: Tensor) -> bool:
    """Whether a tensor is a time embedding for clips of another length."""
    shapes = (tuple(tensor.shape), tuple(fresh.shape))
    if not is_time_embedding(name) or {len(shape) for shape in shapes} != {5}:
        return False
    (*_, theirs, _, _), (*_, ours, _, _) = shapes
    return 0 < theirs != ours and tensor.shape[1] == fresh.shape[1]
