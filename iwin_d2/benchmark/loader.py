"""Clips of video files, decoded and augmented to train on, by ways to get at their frames."""

import importlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ..data.video.container import import_av
from ..data.video.encode import find_encoder, write_clip
from ..data.video.mapper import VideoMapper
from ..data.video.moving_shapes import MOTIONS, compose_moving_scene, draw_moving_scene
from ..data.video.sampling import RandomClip
from ..data.video.transforms import ShortSideResize
from .long_list import measure_list, write_long_list
from .table import against, table
from .timing import time_in_turn

__all__ = ["benchmark_loader"]

_OURS = "this project: from the keyframe before the clip on"
_WHOLE = "PyAV: the whole file to an array, then indexed"
_WIDTH, _HEIGHT, _SECONDS, _RATE = 340, 256, 10, 30
_CLIPS = 6  # files, each gives one clip a round


class _WholeFile:
    """All frames of a file, decoded and converted as it is opened."""

    def __init__(self, path: str, num_threads: int = 1):
        with import_av().open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = num_threads
            frames = [f.to_ndarray(format="rgb24", threads=1) for f in container.decode(stream)]
        self._frames = np.stack(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: np.ndarray, resize: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        frames = torch.from_numpy(self._frames[indices]).permute(0, 3, 1, 2)
        return frames if resize is None else resize(frames)

    def close(self) -> None:
        """Nothing is open."""


class _TorchCodec:
    """TorchCodec's decoder, where it is installed."""

    def __init__(self, path: str, num_threads: int = 1):
        decoders = importlib.import_module("torchcodec.decoders")
        # Channels innermost, as the decoder has them: resizing is fastest with that.
        self._decoder = decoders.VideoDecoder(
            path, num_ffmpeg_threads=num_threads, dimension_order="NHWC"
        )

    def __len__(self) -> int:
        return self._decoder.metadata.num_frames

    def read(self, indices: np.ndarray, resize: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        frames = self._decoder.get_frames_at(indices.tolist()).data.permute(0, 3, 1, 2)
        return frames if resize is None else resize(frames)

    def close(self) -> None:
        """Nothing to close."""


class _TorchVision:
    """torchvision's own decoder, which newer versions do not have."""

    def __init__(self, path: str, num_threads: int = 1):
        io = importlib.import_module("torchvision.io")
        self._frames = io.read_video(path, pts_unit="sec", output_format="TCHW")[0]

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: np.ndarray, resize: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        frames = self._frames[torch.from_numpy(indices)]
        return frames if resize is None else resize(frames)

    def close(self) -> None:
        """Nothing to close."""


def benchmark_loader(rounds: int = 7) -> Iterator[str]:
    """Time the mapper of the training recipe on one thread, then a list of a million videos."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _time_clips(_write_clips(Path(folder)), rounds)
    with tempfile.TemporaryDirectory() as folder:
        yield from _measure_list(write_long_list(Path(folder)))


def _time_clips(files: list[Path], rounds: int) -> list[str]:
    """Each way to read in turn."""
    options = {
        _OURS: {},
        _WHOLE: {"open_video": _WholeFile},
        "torchvision.io.read_video": {"open_video": _TorchVision},
        "TorchCodec": {"open_video": _TorchCodec},
    }
    candidates, reasons = {}, {}
    for name, own in options.items():
        run = partial(_load, _training_mapper(**own), files)
        try:
            run()
            candidates[name] = run
        except (ImportError, AttributeError, RuntimeError) as error:  # of missing libraries
            reasons[name] = f"not here ({type(error).__name__})"
    found = time_in_turn({_WHOLE: candidates.pop(_WHOLE), **candidates}, rounds, warmup=1)

    def row(name: str) -> tuple[str, str, str]:
        if name not in found:
            return name, reasons[name], "-"
        seconds, share = found[name]
        gain = against(f"{1 / share:.2f}x", "1.5x" if name == _OURS else None)
        return name, f"{_CLIPS / seconds:.1f}", gain

    encoder = {"libx264": "H.264", "libopenh264": "H.264"}.get(find_encoder(), "MPEG-4")
    return table(
        f"Clips to train on, from {encoder} files of {_WIDTH}x{_HEIGHT}, {_SECONDS} s",
        ("frames from", "clips/s a core", "against the whole file"),
        [row(name) for name in options],
        "32 frames, every second one, from a random place; short side 256, random resized crop to "
        "224, flip; the file is opened for each clip.",
    )


def _measure_list(path: Path) -> list[str]:
    found = measure_list(path)
    more = {name: f"{found[name] - found['imported']:.0f}" for name in ("peak", "together")}
    return table(
        f"A list of a million videos, {path.stat().st_size / 1e6:.0f} MB",
        ("", "value"),
        [
            ("s until its records are there", against(f"{found['seconds']:.2f}", "2")),
            ("MiB at the peak of that, beyond what importing takes", more["peak"]),
            (
                "MiB after it, beyond the same, parent and 4 workers together",
                against(more["together"], "300"),
            ),
            ("MiB of a process that has only imported the same", f"{found['imported']:.0f}"),
        ],
    )


def _training_mapper(**options) -> VideoMapper:
    crop = v2.RandomResizedCrop(224, scale=(0.08, 1), ratio=(3 / 4, 4 / 3))
    transforms = [crop, v2.RandomHorizontalFlip()]
    return VideoMapper(True, RandomClip(32, 2), ShortSideResize(256), transforms, **options)


def _load(mapper: VideoMapper, files: list[Path]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a data-loading worker
    torch.manual_seed(0)  # each way reads the same frames
    try:
        for file in files:
            mapper({"file_name": str(file), "label": 0})
    finally:
        torch.set_num_threads(threads)


def _write_clips(folder: Path) -> list[Path]:
    """Shapes that move, with noise such as cameras have, so that files have the usual size."""
    files = []
    for index in range(_CLIPS):
        rng = np.random.default_rng(index)
        scene, motion = compose_moving_scene(rng), list(MOTIONS)[index % len(MOTIONS)]
        files.append(folder / f"{index}.mp4")
        write_clip(files[-1], _noisy_frames(scene, motion, rng), _RATE)
    return files


def _noisy_frames(scene, motion: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
    noise = rng.normal(0, 6, (_HEIGHT + 64, _WIDTH + 64, 3)).astype(np.int16)
    for number in range(_SECONDS * _RATE):
        pixels = draw_moving_scene(scene, motion, number, _WIDTH)[:_HEIGHT].astype(np.int16)
        y, x = rng.integers(0, 64, 2)
        pixels += noise[y : y + _HEIGHT, x : x + _WIDTH]
        yield pixels.clip(0, 255).astype(np.uint8)
