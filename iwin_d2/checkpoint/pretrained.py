"""Loading checkpoints into models, whatever family of files they are of."""

import logging
import os
from collections.abc import Sequence

from torch import nn

from .download import locate
from .fitting import Fit, fit
from .options import LoadOptions, make_options
from .reading import read_checkpoint
from .report import Report
from .target import Target, unwrap
from .weights import Weights, recognise

__all__ = ["load_pretrained", "load_weights", "report_of"]

logger = logging.getLogger(__name__)


def load_pretrained(
    model: nn.Module,
    source: str | os.PathLike,
    *,
    part: str = "all",
    classes: str | Sequence[int] = "same",
    leave_out: Sequence[str] = (),
    num_heads: Sequence[int] | None = None,
    channels: str = "same",
    base_url: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Report:
    """Load a checkpoint into a model, whatever it is: published, of Detectron2, of this project.

    ImageNet classifiers, detectors of MMDetection 2, segmenters of MMSegmentation and state dicts
    in this project's names are known by their keys. All of the file has to go into the model and
    all of the model has to be in the file, but for these: classifiers and backbones alone start the
    backbone of any model, and a model that is a backbone alone takes that of any file. A load that
    fails leaves the model as it was.

    Args:
        model: a module, also one that DistributedDataParallel or torch.compile has wrapped.
        source: a file, an address, or a published name: "iwin_tiny_patch4_window7_224". What is
            fetched is kept in a cache.
        part: "backbone" takes no more than that from the file.
        classes: "new" leaves heads as they are in the model where their number of classes is
            another; numbers say for each class of the model which one of the file it is, -1 for
            none; also the name of a text file of them.
        leave_out: beginnings of the model's names, or patterns with *, that are not to be loaded.
        num_heads: the attention heads of each stage that the file was trained with, if that is
            not what it says or what is known of published files.
        channels: "adapt" spreads the weights of the patches over another number of channels.
        base_url: address or folder of the published files; None takes IWIN_D2_WEIGHTS_URL, or
            else the authors' address.
        cache_dir: where fetched files are kept; None takes iopath's cache.

    Returns:
        what was loaded, missing and unexpected, which is logged, too.

    Raises:
        CheckpointError: the file cannot be had or read, or does not fit.
        ConfigError: for an argument that makes no sense.
    """
    options = make_options(
        part=part, classes=classes, leave_out=leave_out, num_heads=num_heads, channels=channels
    )
    path = locate(source, base_url=base_url, cache_dir=cache_dir)
    return load_weights(model, recognise(read_checkpoint(path), path), options)


def load_weights(
    model: nn.Module, weights: Weights, options: LoadOptions | None = None, *, fill: bool = False
) -> Report:
    """Load what was read from a file into a model; see `load_pretrained`.

    Args:
        model: the module.
        weights: of the file.
        options: exceptions.
        fill: whether to refuse weights that leave a part of the model as it was.

    Raises:
        CheckpointError: they do not fit.
    """
    model = unwrap(model)
    found = fit(weights, Target.of(model), options, fill=fill)
    # Shapes and kinds of the tensors have been looked at: nothing can fail any more.
    model.load_state_dict(found.tensors, strict=False)
    report = report_of("Loaded", weights, found)
    logger.info("%s", report)
    for line in report.lines():
        logger.debug("%s", line)
    return report


def report_of(done: str, weights: Weights, found: Fit) -> Report:
    """The report on what was `done` ("Loaded", "Converted") to a file's weights."""
    published = weights.provenance.published
    known = f"the published {published.name}" if published else str(weights.architecture)
    title = f"{done} {weights.path}: {known}, under {weights.layout.title} names"
    return Report(title, found.origins, found.anew, found.unused, tuple(found.notes))
