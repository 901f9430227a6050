"""What keeps a file from being loaded into a model, each in one sentence."""

import fnmatch
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .architecture import (
    CASCADE_MASK_RCNN,
    CASCADE_RCNN,
    CLASSIFIER,
    FASTER_RCNN,
    MASK_RCNN,
    STAGES,
)
from .options import LoadOptions
from .published import nearest_published
from .report import some
from .target import Target
from .weights import Weights

if TYPE_CHECKING:
    from .fitting import Fit

__all__ = [
    "check_heads",
    "check_left_out",
    "check_models",
    "check_names",
    "is_left_out",
]

# How options are given to load_pretrained and in a config.
_IN_CONFIG = "train.init_options"
_BOX_ONLY = {(MASK_RCNN, FASTER_RCNN), (CASCADE_MASK_RCNN, CASCADE_RCNN)}


def check_models(
    weights: Weights, target: Target, options: LoadOptions, backbone_only: bool, fill: bool
) -> None:
    """Compare what model the file is of with what the model is.

    Raises:
        CheckpointError: they are different in a way that has a name: task, size, channels, classes.
    """
    if weights.prefix is None or not target.prefixes:
        return  # the names will tell
    theirs, ours = weights.architecture, target.architecture
    if not backbone_only:
        _check_task(weights, target, options)
    if weights.is_of_video and not target.is_for_video:
        raise CheckpointError(
            f"{weights.path} is {theirs}, whose patches hold several frames: it starts no model "
            f"for images; give weights of one{_such_as(target, CLASSIFIER)}."
        )
    # A backbone is not built behind the last output that is asked for.
    depths = theirs.depths if len(ours.depths) == STAGES else theirs.depths[: len(ours.depths)]
    if (theirs.embed_dim, depths) != (ours.embed_dim, ours.depths):
        example = _such_as(target, theirs.task if backbone_only else "")
        raise CheckpointError(
            f"{weights.path} is {theirs}, the model's backbone is {ours.size}: give weights of "
            f"that size{example}, or build the model with embed_dim={theirs.embed_dim} and "
            f"depths={list(theirs.depths)}."
        )
    if theirs.in_chans != ours.in_chans and options.channels == "same":
        raise CheckpointError(
            f"{weights.path} is of a model for images of {theirs.in_chans} channels, this one is "
            f"for {ours.in_chans}: set in_chans={theirs.in_chans}, or spread the weights over "
            f"them with channels=adapt ({_IN_CONFIG}.channels)."
        )
    if not backbone_only:
        _check_classes(weights, target, options, fill)


def _check_task(weights: Weights, target: Target, options: LoadOptions) -> None:
    theirs, ours = weights.architecture, target.architecture
    if theirs.task == ours.task or not (theirs.task and ours.task) or options.leave_out:
        return
    hint = f"or take its backbone alone with part=backbone ({_IN_CONFIG}.part)"
    if (theirs.task, ours.task) in _BOX_ONLY:
        hint = (
            "or leave its masks out with leave_out=['roi_heads.mask_head'] "
            f"({_IN_CONFIG}.leave_out)"
        )
    raise CheckpointError(
        f"{weights.path} is {theirs}, the model {ours}: give weights of such a model"
        f"{_such_as(target)}, {hint}."
    )


def _check_classes(weights: Weights, target: Target, options: LoadOptions, fill: bool) -> None:
    theirs, ours = weights.architecture.num_classes, target.architecture.num_classes
    if theirs is None or ours is None:
        return
    if not isinstance(options.classes, str):
        if len(options.classes) != ours or max(options.classes) >= theirs:
            raise CheckpointError(
                f"classes has {len(options.classes)} numbers up to {max(options.classes)}: for "
                f"each of the model's {ours} classes, give that of the {theirs} in {weights.path}, "
                "from 0, or -1."
            )
        if fill and min(options.classes) < 0:
            raise CheckpointError(
                f"classes takes {options.classes.count(-1)} of the model's {ours} classes from "
                f"nowhere (-1): train first what is new in {weights.path}, then evaluate."
            )
    elif theirs != ours and options.classes == "same":
        others = (
            f", or have new heads with classes=new ({_IN_CONFIG}.classes), or give the file's "
            "class for each of the model's there"
        )
        raise CheckpointError(
            f"{weights.path} is {weights.architecture}, the model has {ours} classes: set its "
            f"number of classes to {theirs}{'' if fill else others}."
        )


def check_left_out(weights: Weights, target: Target, options: LoadOptions) -> None:
    """Raise CheckpointError for a pattern in leave_out that is for nothing."""
    names = {*target.state, *weights.tensors, *weights.unplaced}
    for pattern in options.leave_out:
        if not any(is_left_out(name, [pattern]) for name in names):
            raise CheckpointError(
                f"leave_out names {pattern!r}, but neither {weights.path} nor the model has such a "
                f"tensor: correct it; the model has {some(target.state)}."
            )


def is_left_out(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name is one of `leave_out`, or begins as one, or matches one."""
    return any(
        name == pattern
        or name.startswith(f"{pattern.rstrip('.')}.")
        or fnmatch.fnmatchcase(name, pattern)
        for pattern in patterns
    )


def check_names(weights: Weights, target: Target, fit: "Fit", fill: bool) -> None:
    """Raise CheckpointError unless everything has its place and the model gets all it needs."""
    path, total = weights.path, len(target.state)
    if not fit.tensors:
        shapes = f"; of other shapes: {some(fit.misshapen.values())}" if fit.misshapen else ""
        given = some(sorted(weights.origins.values()))
        raise CheckpointError(
            f"Nothing in {path} fits the model: the file has {given}, the model "
            f"{some(target.state)}{shapes}; give a checkpoint of {target.architecture}"
            f"{_such_as(target)}."
        )
    faults = []
    if fit.missing:
        count = f"{len(fit.missing)} of the model's {total} tensors"
        faults.append(f"lacks {count} ({some(sorted(fit.missing))})")
    if fit.unexpected:
        lacking = weights.layout.lacking if weights.unplaced else ""
        known = f": {lacking}" if lacking else ""
        faults.append(
            f"has {len(fit.unexpected)} that the model has not ({some(fit.unexpected)}{known})"
        )
    if fit.misshapen:
        faults.append(
            f"has {len(fit.misshapen)} of other shapes ({some(fit.misshapen.values(), 1)})"
        )
    if faults:
        raise CheckpointError(
            f"{path}, {weights.architecture}, does not fit the model: it {' and '.join(faults)}; "
            f"give weights of {target.architecture}{_such_as(target)}, or name what to pass over "
            f"with leave_out ({_IN_CONFIG}.leave_out)."
        )
    if fill and fit.anew:
        raise CheckpointError(
            f"The weights in {path} do not fill the model: it is {weights.architecture}, and "
            f"{len(fit.anew)} of the model's {total} tensors would stay as they were made "
            f"({some(fit.anew)}); evaluate with weights of {target.architecture}"
            f"{_such_as(target)}."
        )


def check_heads(weights: Weights, target: Target, options: LoadOptions, fit: "Fit") -> None:
    """Compare the attention heads, which leave no trace in shapes; note another window.

    Raises:
        CheckpointError: the file was trained with others, or nothing tells with which.
    """
    ours, provenance = target.num_heads, weights.provenance
    if weights.prefix is None or ours is None:
        return
    theirs = options.num_heads or provenance.num_heads
    if theirs is None and provenance.in_doubt:
        raise CheckpointError(
            f"{weights.path}, {weights.architecture}, does not say its attention heads, and such "
            f"models were published with {_or(provenance.in_doubt)}: say which it was trained "
            f"with by num_heads ({_IN_CONFIG}.num_heads), for shapes do not show it."
        )
    if theirs is not None and theirs[: len(ours)] != ours:
        reason = "as said" if options.num_heads else provenance.reason
        raise CheckpointError(
            f"{weights.path}, {weights.architecture}, was trained with {list(theirs)} attention "
            f"heads ({reason}), the model has {list(ours)} and would compute something else: build "
            f"it with num_heads={list(theirs)}, or load it all the same by "
            f"num_heads={list(ours)} ({_IN_CONFIG}.num_heads)."
        )
    window = provenance.window_size
    if window and target.window_size and window != target.window_size:
        fit.notes.append(
            f"trained with windows of {window}, the model's are {target.window_size}: the same "
            "weights compute something else with them"
        )


def _or(heads: Collection[tuple[int, ...]]) -> str:
    return " or ".join(str(list(each)) for each in heads)


def _such_as(target: Target, task: str = "") -> str:
    """The published checkpoint nearest to a model, if there is one of its size and task.

    Args:
        target: the model.
        task: what the checkpoint is to be for, if not for the model's own task.
    """
    nearest = nearest_published(target.shapes, task)
    wanted = (task or target.architecture.task, target.architecture.size)
    if nearest is None or (nearest.architecture.task, nearest.architecture.size) != wanted:
        return ""
    return f", such as {nearest.name}"
