"""Draw boxes, masks and labels on images, with Pillow and NumPy."""

import colorsys
import math
import os
from collections.abc import Sequence
from enum import Enum, unique

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pycocotools import mask as mask_util

from ...files import atomic_write
from ..structures import BoxMode

__all__ = ["ColorMode", "VisImage", "Visualizer"]

_CHIP = (20, 20, 24)  # behind labels


@unique
class ColorMode(Enum):
    """How instances get their colours."""

    IMAGE = 0
    """A colour of its own for every instance."""
    SEGMENTATION = 1
    """One colour for each class."""


class VisImage:
    """The picture that is drawn on; coordinates on it are those of the image times `scale`."""

    def __init__(self, img: np.ndarray, scale: float = 1.0):
        """Make a picture of an image (H x W x 3, RGB, 0 to 255) enlarged by `scale`."""
        self.scale = scale
        picture = Image.fromarray(np.clip(img, 0, 255).astype(np.uint8))
        self.width = max(round(picture.width * scale), 1)
        self.height = max(round(picture.height * scale), 1)
        if scale != 1.0:
            picture = picture.resize((self.width, self.height), Image.BICUBIC)
        self.picture = picture

    def get_image(self) -> np.ndarray:
        """The picture, H x W x 3, RGB, uint8."""
        return np.array(self.picture)

    def save(self, filepath: str | os.PathLike) -> None:
        """Write the picture; the ending of the name says the format."""
        Image.init()  # fills the table of endings
        ending = os.path.splitext(filepath)[1].lower()
        with atomic_write(filepath) as file:
            self.picture.save(file, format=Image.EXTENSION.get(ending, "PNG"))


class Visualizer:
    """Draws predictions or annotations on an image; every draw method returns the VisImage."""

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata=None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
    ):
        """Start a drawing.

        Args:
            img_rgb: H x W x 3, RGB, 0 to 255.
            metadata: of the data set; `thing_classes` and `thing_colors` are used.
            scale: how much to enlarge the picture.
            instance_mode: how to choose colours.
        """
        self.img = np.clip(np.asarray(img_rgb), 0, 255).astype(np.uint8)
        self.metadata = metadata
        self.output = VisImage(self.img, scale)
        self._instance_mode = instance_mode
        size = math.sqrt(self.output.height * self.output.width)
        self._font_size = round(min(max(size / 45, 10), 28))
        self._line_width = max(round(size / 400), 1)
        self._chips: list[tuple] = []  # where labels lie already

    def get_output(self) -> VisImage:
        """The picture as it is now."""
        return self.output

    def draw_instance_predictions(self, predictions, jittering: bool = True) -> VisImage:
        """Draw a model's predictions for this image.

        Args:
            predictions: Instances on the CPU; of `pred_boxes`, `scores`, `pred_classes` and
                `pred_masks` those are drawn that it has.
            jittering: accepted for Detectron2's callers; colours here never jitter.
        """

        def get(name):
            return getattr(predictions, name) if predictions.has(name) else None

        scores, classes, masks = get("scores"), get("pred_classes"), get("pred_masks")
        classes = None if classes is None else classes.tolist()
        labels = self._labels(classes, None if scores is None else scores.tolist())
        return self.overlay_instances(
            boxes=get("pred_boxes"),
            masks=masks,
            labels=labels,
            assigned_colors=self._class_colors(classes),
            alpha=0.4,
        )

    def draw_dataset_dict(self, dic: dict) -> VisImage:
        """Draw the annotations of a record in Detectron2's data set format."""
        annotations = dic.get("annotations") or []
        if not annotations:
            return self.output
        masks = None
        if all("segmentation" in annotation for annotation in annotations):
            masks = [annotation["segmentation"] for annotation in annotations]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        classes = [annotation["category_id"] for annotation in annotations]
        labels = self._labels(classes, None)
        for index, annotation in enumerate(annotations):
            if annotation.get("iscrowd", 0):
                labels[index] += "|crowd"
        return self.overlay_instances(
            boxes=boxes, masks=masks, labels=labels, assigned_colors=self._class_colors(classes)
        )

    def overlay_instances(
        self,
        *,
        boxes=None,
        labels: Sequence[str] | None = None,
        masks=None,
        assigned_colors: Sequence | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw instances, large ones first.

        Args:
            boxes: Boxes, or an N x 4 array of x0, y0, x1, y1.
            labels: one text for each instance.
            masks: BitMasks, PolygonMasks, an N x H x W array, or a list whose items are a mask,
                a list of polygons or an RLE.
            assigned_colors: for each instance a name or an RGB triple in [0, 1].
            alpha: opacity of the masks.
        """
        boxes = None if boxes is None else _box_array(boxes)
        masks = None if masks is None else self._mask_list(masks)
        show_boxes = boxes is not None
        if boxes is None:
            boxes = _box_array([_mask_box(mask) for mask in masks or []])
        if assigned_colors is None:
            assigned_colors = [_palette(index) for index in range(len(boxes))]
        order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
        for i in order:
            if masks is not None:
                self.draw_binary_mask(masks[i], color=assigned_colors[i], alpha=alpha)
        for i in order:
            if show_boxes:
                self.draw_box(boxes[i], edge_color=assigned_colors[i])
        for i in order:  # above all masks and boxes
            if labels is not None:
                self._draw_label(labels[i], boxes[i], assigned_colors[i])
        return self.output

    def draw_box(self, box_coord, alpha: float = 1.0, edge_color="lime", line_style="-"):
        """Draw a thin box.

        Args:
            box_coord: x0, y0, x1, y1 in the image.
            alpha: opacity.
            edge_color: a name or an RGB triple in [0, 1].
            line_style: accepted for Detectron2's callers; lines here are solid.
        """
        x0, y0, x1, y1 = (float(value) * self.output.scale for value in box_coord)
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            return self.output
        # A box along the border is drawn inside the picture.
        x1 = min(max(x1 - 1, x0), max(self.output.width - 1, x0))
        y1 = min(max(y1 - 1, y0), max(self.output.height - 1, y0))
        draw = ImageDraw.Draw(self.output.picture, "RGBA")
        color = (*_rgb(edge_color), round(255 * alpha))
        draw.rectangle((x0, y0, x1, y1), outline=color, width=self._line_width)
        return self.output

    def draw_binary_mask(
        self, binary_mask: np.ndarray, color=None, *, alpha: float = 0.5, edge_color=None
    ) -> VisImage:
        """Fill a mask (H x W of the image) translucently and draw its outline."""
        mask = np.asarray(binary_mask).astype(bool)
        rgb = np.array(_rgb(_palette(0) if color is None else color), dtype=np.float32)
        edge = rgb if edge_color is None else np.array(_rgb(edge_color), dtype=np.float32)
        if self.output.scale != 1.0:
            small = Image.fromarray(mask.astype(np.uint8) * 255)
            large = small.resize((self.output.width, self.output.height), Image.BILINEAR)
            mask = np.asarray(large) >= 128
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if rows.size == 0:
            return self.output
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        part = mask[window]
        outline = part & ~_erode(part, self._line_width)
        corner = (int(columns[0]), int(rows[0]))
        size = (corner[0] + part.shape[1], corner[1] + part.shape[0])
        pixels = np.asarray(self.output.picture.crop((*corner, *size))).astype(np.float32)
        pixels[part] += alpha * (rgb - pixels[part])
        pixels[outline] = edge
        self.output.picture.paste(Image.fromarray(pixels.round().astype(np.uint8)), corner)
        return self.output

    def draw_text(
        self,
        text: str,
        position: tuple[float, float],
        *,
        font_size: float | None = None,
        color="white",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write text on a dark chip, moved to lie inside the picture.

        Args:
            text: one line.
            position: x and y in the image of the chip's top edge: its middle or, by
                horizontal_alignment, its left or right end.
            font_size: in pixels of the picture.
            color: a name or an RGB triple in [0, 1]; dark ones are lightened.
            horizontal_alignment: "left", "center" or "right".
            rotation: accepted for Detectron2's callers; text here is horizontal.
        """
        font = _font(round(font_size or self._font_size))
        width, height = _text_size(text, font)
        x, y = (value * self.output.scale for value in position)
        x -= {"left": 0, "center": width / 2, "right": width}[horizontal_alignment]
        self._draw_chip(text, font, *self._inside(x, y, width, height), color)
        return self.output

    def _draw_label(self, text: str, box, color) -> None:
        """Put a label at the first free one of a few places at the box."""
        if not text or not np.isfinite(box).all():
            return
        font = _font(self._font_size)
        width, height = _text_size(text, font)
        x0, y0, x1, y1 = (float(value) * self.output.scale for value in box)
        wanted = [(x0, y0 - height), (x0, y0), (x0, y1), (x1 - width, y1 - height), (x1, y0)]
        places = [self._inside(x, y, width, height) for x, y in wanted]
        free = (place for place in places if not self._covered(*place, width, height))
        self._draw_chip(text, font, *next(free, places[1]), color)

    def _inside(self, x, y, width, height) -> tuple[int, int]:
        """The place nearest to (x, y) where a chip lies inside the picture."""
        x = min(max(x, 0), max(self.output.width - width, 0))
        y = min(max(y, 0), max(self.output.height - height, 0))
        return round(x), round(y)

    def _covered(self, x, y, width, height) -> bool:
        return any(
            x < right and left < x + width and y < bottom and top < y + height
            for left, top, right, bottom in self._chips
        )

    def _draw_chip(self, text, font, x, y, color) -> None:
        width, height = _text_size(text, font)
        draw = ImageDraw.Draw(self.output.picture, "RGBA")
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=(*_CHIP, 200))
        ink = tuple(round(0.45 * value + 0.55 * 255) for value in _rgb(color))
        draw.text((x + 2, y + 1), text, font=font, fill=ink)
        self._chips.append((x, y, x + width, y + height))

    def _labels(self, classes, scores) -> list[str] | None:
        """Texts such as "cat 93%"."""
        if classes is None and scores is None:
            return None
        names = getattr(self.metadata, "thing_classes", None)
        texts = [""] * len(classes if classes is not None else scores)
        if classes is not None:
            texts = [names[c] if names and 0 <= c < len(names) else str(c) for c in classes]
        if scores is not None:
            texts = [f"{text} {score * 100:.0f}%".strip() for text, score in zip(texts, scores)]
        return texts

    def _class_colors(self, classes) -> list | None:
        """A colour for each instance by its class, in the mode for it; else None."""
        if self._instance_mode != ColorMode.SEGMENTATION or classes is None:
            return None
        colors = getattr(self.metadata, "thing_colors", None)
        if colors:
            return [[value / 255 for value in colors[c]] for c in classes]
        return [_palette(c) for c in classes]

    def _mask_list(self, masks) -> list[np.ndarray]:
        """Binary masks of the image's size out of all forms that masks come in."""
        if hasattr(masks, "polygons"):
            masks = masks.polygons
        elif hasattr(masks, "tensor"):
            masks = masks.tensor
        return [self._binary_mask(mask) for mask in masks]

    def _binary_mask(self, mask) -> np.ndarray:
        height, width = self.img.shape[:2]
        if isinstance(mask, dict):
            if isinstance(mask["counts"], list):  # uncompressed
                mask = mask_util.frPyObjects(mask, *mask["size"])
            return mask_util.decode(mask).astype(bool)
        if isinstance(mask, list):
            polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1) for polygon in mask]
            polygons = [polygon.tolist() for polygon in polygons if len(polygon) >= 6]
            if not polygons:
                return np.zeros((height, width), dtype=bool)
            rles = mask_util.frPyObjects(polygons, height, width)
            return mask_util.decode(mask_util.merge(rles)).astype(bool)
        mask = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
        return mask.astype(bool)


def _box_array(boxes) -> np.ndarray:
    boxes = boxes.tensor if hasattr(boxes, "tensor") else boxes
    boxes = boxes.detach().cpu().numpy() if isinstance(boxes, torch.Tensor) else boxes
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def _mask_box(mask: np.ndarray) -> list[int]:
    """The smallest box around a mask; all zero for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        return [0, 0, 0, 0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def _erode(mask: np.ndarray, steps: int) -> np.ndarray:
    """Take `steps` pixels off a mask's border (four neighbours; outside counts as empty)."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _palette(index: int) -> tuple[float, float, float]:
    """A vivid colour; golden-ratio steps around the hues keep neighbours apart."""
    hue = (0.02 + index * 0.618034) % 1.0
    return colorsys.hsv_to_rgb(hue, 0.85 if index % 2 == 0 else 0.65, 1.0)


def _rgb(color) -> tuple[int, int, int]:
    """0 to 255 out of a name or a triple in [0, 1]."""
    if isinstance(color, str):
        return ImageColor.getrgb(color)[:3]
    return tuple(round(255 * float(value)) for value in color[:3])


def _font(size: int):
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()


def _text_size(text: str, font) -> tuple[int, int]:
    """Width and height of a chip; equal heights for all texts of a font."""
    left, _, right, _ = font.getbbox(text)
    _, _, _, bottom = font.getbbox("Ag")
    return math.ceil(right - left) + 5, math.ceil(bottom) + 3
