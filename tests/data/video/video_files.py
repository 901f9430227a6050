"""Small videos whose frames show their own number, written with PyAV, and read in full."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="PyAV is not installed")

BITS = 8
H264 = {"crf": "12", "preset": "veryfast"}

needs_h264 = pytest.mark.skipif(
    "libx264" not in av.codecs_available, reason="this FFmpeg has no encoder for H.264"
)


def numbered_frame(number, height, width):
    """A picture whose columns are dark or light by the bits of a number, RGB uint8 [H, W, 3].

    The upper half is bluer, the left edge red, so that a turn or a mirror image shows.
    """
    pixels = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        pixels[:, left:right] = 200 if number >> bit & 1 else 40
    pixels[: height // 2, :, 2] += 50
    return pixels


def shown_number(pixels):
    """The number that an upright picture shows; pixels: uint8 [H, W, 3] or Tensor[3, H, W]."""
    pixels = np.asarray(pixels)
    pixels = pixels if pixels.shape[-1] == 3 else pixels.transpose(1, 2, 0)
    width = pixels.shape[1]
    columns = [pixels[:, width * (2 * bit + 1) // (2 * BITS), 0].mean() for bit in range(BITS)]
    return sum((column > 120) << bit for bit, column in enumerate(columns))


def write_video(
    path,
    num_frames=40,
    height=48,
    width=64,
    *,
    codec="libx264",
    rate=25,
    ticks=None,
    time_base=Fraction(1, 1000),
    pix_fmt="yuv420p",
    options=None,
    container_options=None,
    rotation=None,
    keyframes=12,
    b_frames=3,
    container_format=None,
):
    """Write a video of numbered frames; `ticks` are their times in units of `time_base`."""
    if codec == "libx264":
        options = {**H264, "g": str(keyframes), "bf": str(b_frames), **(options or {})}
    with av.open(
        str(path), "w", format=container_format, options=container_options or {}
    ) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1
        if codec != "libx264":
            stream.codec_context.gop_size = keyframes
            stream.codec_context.max_b_frames = b_frames
        if ticks is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(*np.atleast_1d(rotation).tolist())
        container.start_encoding()  # also where there is no frame
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, height, width), "rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[number], time_base
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path


def write_sound(path):
    """Write a file that has sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_frames(folder, count=12, first=1, name="img_{:05d}.png"):
    """Write a folder of numbered pictures."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        picture = Image.fromarray(numbered_frame(number, 24, 32))
        picture.save(folder / name.format(first + number))
    return folder


def read_everything(path, only=None):
    """All frames as the decoder gives them, turned by PyAV's rotation: uint8 [H, W, 3] each.

    Of those that are not among `only` there is None.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [
            np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            if only is None or number in only
            else None
            for number, frame in enumerate(container.decode(stream))
        ]
