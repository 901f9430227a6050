"""What a module tells about its output, so that the next one can be built."""

from dataclasses import dataclass

__all__ = ["ShapeSpec"]


@dataclass
class ShapeSpec:
    """Shape of a feature map; None where it is not known or does not apply.

    Args:
        channels: number of channels.
        height: rows.
        width: columns.
        stride: pixels of the input image per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
