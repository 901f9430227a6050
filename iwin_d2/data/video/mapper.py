"""The mapper of videos: a record of a list -> a classifier's input."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import AugmentationError, UserError
from .frame_folder import open_video

__all__ = ["VideoMapper"]


class VideoMapper:
    """Reads the clips of a video and prepares them for the model.

    The video is opened and closed with each call, in whichever process that is. Random numbers are
    torch's, which the training loader seeds from the position in the stream.

    Args:
        is_train: for training, or for tests; says whose config a message names.
        sampler: length -> indices of frames, int64 [clips, T]; see `sampling`.
        resize: applied to each frame as soon as it is decoded, Tensor[3, H, W]: of large videos
            only small frames are ever held. `ShortSideResize` is one. None: as stored.
        transforms: applied to each clip, uint8 Tensor[T, 3, H, W], one after the other. The last
            one may make views of it, Tensor[V, T, 3, h, w], as `ThreeCrops` does.
        open_video: opens a path; what it returns has a length, read(indices, resize) and close().
            `VideoFile` is one, `FrameFolder` another.
        num_threads: that decode a video, to be left at 1 where there are several workers.
    """

    unit = "video"  # in the loader's messages

    def __init__(
        self,
        is_train: bool,
        sampler: Callable[[int], np.ndarray],
        resize: Callable[[Tensor], Tensor] | None = None,
        transforms: Sequence[Callable[[Tensor], Tensor]] = (),
        open_video: Callable = open_video,
        num_threads: int = 1,
    ):
        self.is_train = is_train
        self.sampler = sampler
        self.resize = resize
        self.transforms = list(transforms)
        self.open_video = open_video
        self.num_threads = num_threads

    def __call__(self, record: dict) -> dict:
        """Read a record's video.

        Args:
            record: with `file_name`; everything else is handed on.

        Returns:
            the record with `video`, uint8 Tensor[V, 3, T, h, w]: all views of the first clip, then
            those of the next; `clips`, the number of clips; `num_frames`, of the whole video.

        Raises:
            DataError: the video is missing, damaged, or none.
            AugmentationError: the video is whole, but sampler or transforms fail.
        """
        video = self.open_video(record["file_name"], num_threads=self.num_threads)
        try:
            length = len(video)
            indices = self._prepared(self.sampler, length, record)
            frames = self._prepared(
                lambda flat: video.read(flat, resize=self.resize), indices.reshape(-1), record
            )
        finally:
            video.close()
        clips = frames.unflatten(0, indices.shape)  # [clips, T, 3, H, W]
        views = self._prepared(self._views, clips, record)
        return {**record, "video": views, "clips": len(indices), "num_frames": length}

    def _views(self, clips: Tensor) -> Tensor:
        """[clips, T, 3, H, W] -> [clips * views, 3, T, h, w]."""
        views = []
        for clip in clips:
            for transform in self.transforms:
                clip = transform(clip)
            views += clip.unbind() if clip.ndim == 5 else [clip]
        return torch.stack([view.transpose(0, 1) for view in views])

    def _prepared(self, function: Callable, given: Any, record: dict) -> Any:
        """function(given), with errors that name the video."""
        try:
            return function(given)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # samplers and transforms can be anybody's
            reason = " ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(".:")
            mapper = f"dataloader.{'train' if self.is_train else 'test'}.mapper"
            raise AugmentationError(
                f"{record['file_name']} cannot be prepared for the model ({reason}): check "
                f"{mapper}, its sampler, resize and transforms (IWIN_D2_TRACEBACK=1 shows where)."
            ) from error
