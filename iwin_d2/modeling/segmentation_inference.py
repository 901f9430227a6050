"""Inference of semantic segmenters: whole images or sliding windows, several scales, flipped."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..d2.modeling import SemanticSegmentor
from ..d2.structures import ImageList
from ..errors import ConfigError
from .seen_image import Logits, SeenImage, Size
from .sliding_windows import cut
from .tta import View

__all__ = ["SegmenterInference", "is_plain_segmenter", "is_segmenter", "predicted_labels"]

_TILE = 128  # pixels of the output, of either side, that scores are computed of at a time
_ACROSS = 16  # windows in a row of them that are held, unless more lie over one pixel


def predicted_labels(output: dict[str, Any]) -> Tensor:
    """The class of each pixel in a segmenter's output for one image.

    Args:
        output: with "sem_seg_labels", integer Tensor[H, W], or "sem_seg", scores Tensor[C, H, W].

    Returns:
        int32 Tensor[H, W] of class numbers, where the output lies.

    Raises:
        ConfigError: it is no segmenter's output.
    """
    if "sem_seg_labels" in output:
        return output["sem_seg_labels"].to(torch.int32)
    if "sem_seg" in output:
        rows = max(_TILE**2 // max(output["sem_seg"].shape[-1], 1), 1)  # little enough for caches
        return torch.cat([_best_class(part) for part in output["sem_seg"].split(rows, dim=1)])
    raise ConfigError(
        f"The model gives {', '.join(map(repr, output)) or 'nothing'}, where a semantic segmenter "
        "gives 'sem_seg' or 'sem_seg_labels': evaluate a model with a sem_seg_head."
    )


class SegmenterInference(nn.Module):
    """A semantic segmenter that sees images as a whole or window by window, in several views.

    As MMSegmentation does it. In a view, the logits are upsampled to the image (to each window,
    and the mean is taken where windows overlap), then resized to the output, both bilinearly with
    corners not aligned; the probabilities of all views are averaged. Windows start at multiples of
    the stride, but the last ends at the image's border; a window larger than an image is the image.

    Takes Detectron2's list of inputs. Gives {"sem_seg": probabilities Tensor[C, height, width]} for
    each; or, as is the default with windows, {"sem_seg_labels": int32 Tensor[height, width]}, for
    which the scores are never held: what a window gives is kept at the head's own resolution and
    only until no pixel needs it any more, scores exist of some 128 x 128 pixels at a time, and an
    image many windows wide is done in stripes, between which windows that both need are computed
    twice. So memory does not depend on the image's size, but for the image (with several scales, in
    each of them, as float32) and its labels. Of several views, each holds windows of its own.

    Images are seen one by one, or together with others of their very size: what a backbone of
    interleaved windows makes of an image depends on what it would be padded to. They are padded
    only as the backbone's size_divisibility asks for it.

    Is in the model's mode, training or not, when it is made; gradients are not computed.
    """

    def __init__(
        self,
        model: nn.Module,
        window: int | Size | None = None,
        stride: int | Size | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        *,
        batch_size: int | None = None,
        labels_only: bool | None = None,
    ):
        """Wrap a segmenter.

        Args:
            model: a `SemanticSegmentor`; it is wrapped, not copied.
            window: height and width of sliding windows, in pixels of what the model would see; None
                for whole images.
            stride: from one window to the next; None for the window's own size.
            scales: the sizes in which it sees an image, relative to the one that it is given.
            flip: whether to see each size flipped from left to right, too.
            batch_size: windows in one pass of the model; None for 1 on the CPU, where more take
                memory and save no time, and 4 elsewhere.
            labels_only: whether to give labels and hold no scores; None: where there are windows.

        Raises:
            ConfigError: for a model of another kind; says which.
            ValueError: a setting makes no sense.
        """
        super().__init__()
        _check_supported(model)
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"scales must be numbers above 0, got {list(scales)}")
        if window is None and stride is not None:
            raise ValueError(f"stride={stride} is that of windows, but window is None")
        self.window = None if window is None else _pair("window", window)
        self.stride = self.window if stride is None else _pair("stride", stride)
        if self.window and any(step > side for step, side in zip(self.stride, self.window)):
            raise ValueError(f"stride={self.stride} leaves holes between windows of {self.window}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        self.model = model
        self.training = model.training
        self.views = [
            View(float(scale), flipped)
            for scale in scales
            for flipped in ((False, True) if flip else (False,))
        ]
        self.batch_size = batch_size
        self.labels_only = self.window is not None if labels_only is None else labels_only

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment a batch of images.

        Args:
            batched_inputs: for each image a dict of "image", Tensor[C, H, W], and optionally
                "height" and "width", the size of the output if it is not the image's.

        Returns:
            for each image {"sem_seg": float32 Tensor[C, height, width]}, which sum to one over the
            classes, or {"sem_seg_labels": int32 Tensor[height, width]}.
        """
        if self.training:
            raise RuntimeError("segmenter inference is for a model in eval mode")
        outputs: list[dict[str, Tensor]] = [{}] * len(batched_inputs)
        for group in _same_size(batched_inputs):
            items = [batched_inputs[index] for index in group]
            found = self._labels(items) if self.labels_only else self._scores(items)
            for index, output in zip(group, found):
                outputs[index] = output
        return outputs

    def view_sizes(self, size: Size) -> list[Size]:
        """The sizes in which an image of `size` is seen, in pixels."""
        return [view.size_of(size) for view in self.views]

    def _scores(self, items: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """The mean probabilities of the views, one view after the other."""
        totals: list[Tensor | None] = [None] * len(items)
        for view in self.views:
            seen = [self._see(item, [view])[0] for item in items]
            self._look_at_whole_images(seen)
            for index, one in enumerate(seen):
                for rows, columns in self._walk([one]):
                    found = one.logits(rows, columns).softmax(0) / len(self.views)
                    if totals[index] is None:
                        size = one.rows.output, one.columns.output
                        totals[index] = found.new_zeros(len(found), *size)
                    totals[index][:, rows, columns] += found
                one.held.clear()
        return [{"sem_seg": total} for total in totals]

    def _labels(self, items: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """The best class of each pixel, all views at once."""
        seen = [self._see(item, self.views) for item in items]
        for number in range(len(self.views)):
            self._look_at_whole_images([views[number] for views in seen])
        return [{"sem_seg_labels": self._best(views)} for views in seen]

    def _best(self, views: list[SeenImage]) -> Tensor:
        size = views[0].rows.output, views[0].columns.output
        labels = torch.empty(size, dtype=torch.int32, device=self.model.device)
        for rows, columns in self._walk(views):
            scores = views[0].logits(rows, columns)
            if len(views) > 1:
                scores = scores.softmax(0)
                for view in views[1:]:
                    scores += view.logits(rows, columns).softmax(0)
            labels[rows, columns] = _best_class(scores)
        return labels

    def _see(self, item: dict[str, Any], views: list[View]) -> list[SeenImage]:
        """An image in some views."""
        image = item["image"]
        if self.window is None:
            image = image.to(self.model.device)
        size = item.get("height", image.shape[-2]), item.get("width", image.shape[-1])
        scaled = {view.scale: View(view.scale, False).of_image(image) for view in views}
        return [
            SeenImage(scaled[view.scale], view.flipped, size, self.window, self.stride)
            for view in views
        ]

    def _walk(self, views: list[SeenImage]) -> Iterator[tuple[slice, slice]]:
        """Go over rectangles of the output; the windows that each depends on are held meanwhile.

        In stripes across the side with fewer windows. In a stripe, as far along the other side as a
        row of windows completes the output, window by window.
        """
        upright = len(views[0].columns.starts) <= len(views[0].rows.starts)
        across, along = (1, 0) if upright else (0, 1)

        def few(pixels: slice, least: int = 0) -> bool:
            return all(
                len(view.needed(across, pixels)) <= max(view.axes[across].depth + 1, least)
                for view in views
            )

        def completed_together(pixels: slice) -> bool:
            ends = slice(pixels.start, pixels.start + 1), slice(pixels.stop - 1, pixels.stop)
            return all(len({view.last_needed(along, end) for end in ends}) == 1 for view in views)

        length, width = (views[0].axes[side].output for side in (along, across))
        bands = cut(slice(0, length), length, completed_together)
        for stripe in cut(slice(0, width), width, partial(few, least=_ACROSS)):
            pieces = cut(stripe, _TILE, few)
            for band in bands:
                for piece in pieces:
                    rest = slice(piece.start, stripe.stop)
                    for view in views:
                        self._hold(view, across, band, piece, rest)
                    for start in range(band.start, band.stop, _TILE):
                        tile = slice(start, min(start + _TILE, band.stop))
                        yield (tile, piece) if upright else (piece, tile)
                    for view in views:
                        view.forget(across, slice(piece.stop, stripe.stop), band.stop)

    def _hold(self, view: SeenImage, across: int, band: slice, piece: slice, rest: slice) -> None:
        """See the windows that a piece of a band depends on.

        Batches are filled with those that the rest of the band will depend on.
        """
        if all(place in view.held for place in view.windows(across, piece, band)):
            return
        missing = [place for place in view.windows(across, rest, band) if place not in view.held]
        wanted = set(view.windows(across, piece, band))
        size = self.batch_size or (1 if self.model.device.type == "cpu" else 4)
        for start in range(0, len(missing), size):
            if wanted.issubset(view.held):
                break
            self._look([(view, place) for place in missing[start : start + size]])

    def _look_at_whole_images(self, views: list[SeenImage]) -> None:
        """See images of one size together, where they are seen as a whole."""
        if self.window is None:
            self._look([(view, (0, 0)) for view in views])

    def _look(self, wanted: list[tuple[SeenImage, tuple[int, int]]]) -> None:
        """Hold the logits of these windows, which are of one size, after a pass of the model."""
        model = self.model
        pixels = [view.pixels(*place).to(model.device) for view, place in wanted]
        images = ImageList.from_tensors(
            [(window - model.pixel_mean) / model.pixel_std for window in pixels],
            model.backbone.size_divisibility,
            padding_constraints=model.backbone.padding_constraints,
        ).tensor
        features = model.backbone(images)
        head = model.sem_seg_head
        # Not as upsampled as the head gives it, where it can be had so.
        logits = head.layers(features) if hasattr(head, "layers") else head(features)[0]
        for (view, place), found in zip(wanted, logits):
            view.held[place] = Logits(found)
            view.padded = images.shape[-2], images.shape[-1]


def _best_class(scores: Tensor) -> Tensor:
    """scores.argmax(0) as int32; on the CPU several times as fast.

    The first of several that are equal; the last class of all where scores are NaN.
    """
    count = len(scores)
    if scores.device.type != "cpu" or count > 255:
        return scores.argmax(0).to(torch.int32)
    backwards = torch.arange(count, 0, -1, dtype=torch.uint8)[:, None, None]
    is_best = (scores >= scores.amax(0)).view(torch.uint8)
    return (count - is_best.mul_(backwards).amax(0).to(torch.int32)).clamp_(max=count - 1)


def is_segmenter(model: nn.Module) -> bool:
    """Whether a model does semantic segmentation, and that alone."""
    return _has(model, "sem_seg_head") and not _has(model, "roi_heads")


def is_plain_segmenter(model: nn.Module) -> bool:
    """Whether a model works as a `SemanticSegmentor` does, with whatever backbone and head."""
    return (
        isinstance(model, SemanticSegmentor)
        and type(model).forward is SemanticSegmentor.forward
        and is_segmenter(model)
    )


def _has(model: nn.Module, part: str) -> bool:
    return getattr(model, part, None) is not None


def _check_supported(model: nn.Module) -> None:
    """Raise ConfigError for a model that does not work as `SegmenterInference` takes it to."""
    if not is_plain_segmenter(model):
        raise ConfigError(
            "Sliding windows and several views of a segmenter are for a SemanticSegmentor, but the "
            f"model is a {type(model).__name__}: set train.sliding_window.enabled=False and "
            "train.test_time_augmentation.enabled=False."
        )


def _pair(name: str, value: int | Sequence[int]) -> Size:
    height, width = (value, value) if isinstance(value, int) else value
    if min(height, width) < 1:
        raise ValueError(f"{name} must be 1 pixel or more, got {value}")
    return height, width


def _same_size(batched_inputs: list[dict[str, Any]]) -> list[list[int]]:
    """The numbers of the images, those of the same size together."""
    groups: dict[torch.Size, list[int]] = {}
    for index, item in enumerate(batched_inputs):
        groups.setdefault(item["image"].shape, []).append(index)
    return list(groups.values())
