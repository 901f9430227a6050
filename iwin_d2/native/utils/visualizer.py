"""Draw boxes, masks and labels on images, with Pillow and NumPy."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pycocotools import mask as mask_util
from torchvision.ops import masks_to_boxes

from ..structures import polygons_to_bitmask

_CHIP = (20, 20, 24)  # behind labels


class VisImage:
    """The picture that is drawn on."""

    def __init__(self, picture: Image.Image):
        self.picture = picture

    def get_image(self) -> np.ndarray:
        """The picture, H x W x 3, RGB, uint8."""
        return np.array(self.picture)


class Visualizer:
    """Draws predictions or annotations on an image.

    `img_rgb` is H x W x 3, 0 to 255; of `metadata`, `thing_classes` is used; `scale` enlarges the
    picture, not the coordinates of what is drawn.
    """

    def __init__(self, img_rgb: np.ndarray, metadata=None, scale: float = 1.0):
        picture = Image.fromarray(np.clip(img_rgb, 0, 255).astype(np.uint8))
        self._image_size = picture.height, picture.width
        if scale != 1.0:
            size = (max(int(side * scale + 0.01), 1) for side in picture.size)  # rounded down
            picture = picture.resize(tuple(size), Image.BICUBIC)
        self.metadata = metadata
        self.output = VisImage(picture)
        self._scale = scale
        self._width, self._height = picture.size
        size = math.sqrt(self._height * self._width)
        self._font = _load_font(round(min(max(size / 45, 10), 28)))
        self._line_width = max(round(size / 400), 1)
        self._chips: list[tuple] = []  # where labels lie already

    def get_output(self) -> VisImage:
        """The picture as it is now."""
        return self.output

    def draw_instance_predictions(self, predictions) -> VisImage:
        """Draw Instances of this image.

        Of `pred_boxes`, `scores`, `pred_classes` and `pred_masks` it draws those that are there.
        """
        fields = predictions.to("cpu").get_fields()
        labels = [""] * len(predictions)
        if "pred_classes" in fields:
            names = getattr(self.metadata, "thing_classes", None) or []
            classes = fields["pred_classes"].tolist()
            labels = [names[c] if 0 <= c < len(names) else str(c) for c in classes]
        if "scores" in fields:
            scores = fields["scores"].tolist()
            labels = [f"{text} {score * 100:.0f}%".strip() for text, score in zip(labels, scores)]
        return self.overlay_instances(
            boxes=fields.get("pred_boxes"), masks=fields.get("pred_masks"), labels=labels, alpha=0.4
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

        `boxes` are Boxes or an N x 4 array of x0, y0, x1, y1; `masks` BitMasks, PolygonMasks, an
        N x H x W array, or a list whose items are a mask, a list of polygons or an RLE;
        `assigned_colors` names or RGB triples in [0, 1].
        """
        masks = getattr(masks, "polygons", getattr(masks, "tensor", masks))
        masks = None if masks is None else [self._binary_mask(mask) for mask in masks]
        places = [_mask_box(mask) for mask in masks or []] if boxes is None else boxes
        places = np.asarray(getattr(places, "tensor", places), dtype=np.float64).reshape(-1, 4)
        if assigned_colors is None:
            assigned_colors = [_palette(index) for index in range(len(places))]
        colors = [_rgb(color) for color in assigned_colors]
        order = np.argsort(-np.prod(places[:, 2:] - places[:, :2], axis=1), kind="stable")
        places = places * self._scale
        for i in order if masks is not None else ():
            self._draw_mask(masks[i], colors[i], alpha)
        for i in order if boxes is not None else ():
            self._draw_box(places[i], colors[i])
        for i in order if labels is not None else ():  # above all masks and boxes
            self._draw_label(labels[i], places[i], colors[i])
        return self.output

    def _binary_mask(self, mask) -> np.ndarray:
        """A mask of the image's size out of the forms that masks come in."""
        if isinstance(mask, dict):
            if isinstance(mask["counts"], list):  # uncompressed
                mask = mask_util.frPyObjects(mask, *mask["size"])
            return mask_util.decode(mask).astype(bool)
        if isinstance(mask, list):
            polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1) for polygon in mask]
            # What is no triangle has no area, and pycocotools takes four numbers for a box.
            return polygons_to_bitmask([p for p in polygons if len(p) >= 6], *self._image_size)
        return np.asarray(mask).astype(bool)

    def _draw_mask(self, mask: np.ndarray, rgb: tuple, alpha: float) -> None:
        """Fill a mask translucently and draw its outline."""
        if self._scale != 1.0:
            small = Image.fromarray(mask.astype(np.uint8) * 255)
            mask = np.asarray(small.resize((self._width, self._height), Image.BILINEAR)) >= 128
        x0, y0, x1, y1 = _mask_box(mask)
        part = mask[y0:y1, x0:x1]
        if part.size == 0:
            return
        pixels = np.asarray(self.output.picture.crop((x0, y0, x1, y1))).astype(np.float32)
        pixels[part] += alpha * (np.array(rgb) - pixels[part])
        pixels[part & ~_erode(part, self._line_width)] = rgb
        self.output.picture.paste(Image.fromarray(pixels.round().astype(np.uint8)), (x0, y0))

    def _draw_box(self, box: np.ndarray, rgb: tuple) -> None:
        if not np.isfinite(box).all():
            return
        x0, y0, x1, y1 = box.tolist()
        # A box along the border is drawn inside the picture.
        x1 = min(max(x1 - 1, x0), max(self._width - 1, x0))
        y1 = min(max(y1 - 1, y0), max(self._height - 1, y0))
        draw = ImageDraw.Draw(self.output.picture)
        draw.rectangle((x0, y0, x1, y1), outline=rgb, width=self._line_width)

    def _draw_label(self, text: str, box: np.ndarray, rgb: tuple) -> None:
        """Put a label on a chip at the first free one of a few places at the box."""
        if not text or not np.isfinite(box).all():
            return
        left, _, right, _ = self._font.getbbox(text)
        width, height = math.ceil(right - left) + 5, math.ceil(self._font.getbbox("Ag")[3]) + 3
        x0, y0, x1, y1 = box.tolist()
        wanted = [(x0, y0 - height), (x0, y0), (x0, y1), (x1 - width, y1 - height), (x1, y0)]
        chips = [self._chip_inside(x, y, width, height) for x, y in wanted]
        free = (chip for chip in chips if not any(_overlap(chip, other) for other in self._chips))
        chip = next(free, chips[1])
        self._chips.append(chip)
        x, y, right, bottom = chip
        draw = ImageDraw.Draw(self.output.picture, "RGBA")
        draw.rectangle((x, y, right - 1, bottom - 1), fill=(*_CHIP, 200))
        ink = tuple(round(0.45 * value + 0.55 * 255) for value in rgb)
        draw.text((x + 2, y + 1), text, font=self._font, fill=ink)

    def _chip_inside(self, x, y, width, height) -> tuple[int, int, int, int]:
        """The chip (x0, y0, x1, y1) nearest to (x, y) that lies inside the picture."""
        x = round(min(max(x, 0), max(self._width - width, 0)))
        y = round(min(max(y, 0), max(self._height - height, 0)))
        return x, y, x + width, y + height


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _mask_box(mask: np.ndarray) -> list[int]:
    """The smallest box around a mask, (x0, y0, x1, y1) with exclusive ends; zero for none."""
    if not mask.any():
        return [0, 0, 0, 0]
    x0, y0, x1, y1 = masks_to_boxes(torch.from_numpy(mask)[None])[0].int().tolist()
    return [x0, y0, x1 + 1, y1 + 1]


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


def _load_font(size: int):
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        return ImageFont.load_default()
