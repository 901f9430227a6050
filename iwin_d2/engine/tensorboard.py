"""What a training shows in TensorBoard: losses, results, learning rate and pictures."""

import importlib.util
import logging
import os
from collections.abc import Sequence

import numpy as np

from ..d2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from .build import reason_of

__all__ = ["TensorBoardWriter", "make_writers"]

logger = logging.getLogger(__name__)

_ELSEWHERE = "losses and results are in metrics.json and log.txt alone"


def make_writers(
    output_dir: str, max_iter: int, start_iter: int, tensorboard: bool
) -> tuple[list[EventWriter], "TensorBoardWriter | None"]:
    """Make the writers of a training: console, metrics.json, TensorBoard files.

    Args:
        output_dir: the folder to write into.
        max_iter: the training's.
        start_iter: that it begins with; what TensorBoard has of it and later is hidden.
        tensorboard: whether to write for TensorBoard; where it is not installed, a warning says so.

    Returns:
        all writers, and that for TensorBoard or None.
    """
    writers = [CommonMetricPrinter(max_iter), JSONWriter(os.path.join(output_dir, "metrics.json"))]
    if not tensorboard:
        return writers, None
    if importlib.util.find_spec("tensorboard") is None:
        logger.warning(
            "TensorBoard is not installed: %s (pip install tensorboard, or set "
            "train.tensorboard.enabled=False).",
            _ELSEWHERE,
        )
        return writers, None
    writer = TensorBoardWriter(output_dir, start_iter)
    return [*writers, writer], writer


class TensorBoardWriter(TensorboardXWriter):
    """The framework's writer of scalars, which also writes pictures, in the same file."""

    def __init__(self, log_dir: str, start_iter: int = 0):
        """Prepare to write; nothing is written yet.

        Args:
            log_dir: the folder.
            start_iter: of a resumed training: what an earlier part of it has written for later
                iterations is hidden. Results of an evaluation at its end, which stand under this
                iteration, are kept.
        """
        options = {"purge_step": start_iter + 1} if start_iter > 0 else {}
        super().__init__(log_dir, **options)
        self._pictures: list[tuple[str, np.ndarray, int]] = []
        self._broken = False

    def add_pictures(self, pictures: Sequence[tuple[str, np.ndarray]], iteration: int) -> None:
        """Have pictures, (name, RGB uint8 [H, W, 3]), written with the next scalars."""
        self._pictures += [(name, picture, iteration) for name, picture in pictures]

    def write(self) -> None:
        if self._broken:
            return
        try:
            super().write()
            for name, picture, iteration in self._pictures:
                self._writer.add_image(name, picture, iteration, dataformats="HWC")
        except ImportError as error:  # installed, but not whole, or of versions that do not fit
            logger.warning("TensorBoard cannot be used (%s): %s.", reason_of(error), _ELSEWHERE)
            self._broken = True
        self._pictures.clear()

    def close(self) -> None:
        if not self._broken:
            super().close()
