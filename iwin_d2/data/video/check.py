"""The check of a list of videos: everything wrong with its lines and files, in one pass."""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike

import numpy as np

from ...errors import DataError
from ..check_report import MAX_CLASSES
from ..image_check import in_threads
from ..problems import Problem
from .container import av_errors, open_container, reason_of
from .decode import VideoFile
from .frame_folder import FrameFolder, open_video
from .records import VideoList, list_problems

__all__ = ["VideoCheck", "describe_video_summary", "inspect_video"]

_BLOCK = 4096  # videos whose records are there at a time
Finding = tuple[str, str]  # severity, the sentence


@dataclass
class VideoCheck:
    """Looks through a list of videos, and counts what it holds on the way.

    Attributes:
        list_file: the list.
        root: the folder that its paths start from; None: the one that the list lies in.
        classes: the names of the classes, or a file with them; None: numbers.
        num_classes: their number, if neither names nor labels say it.
        summary: for json: videos, frames (in all), lengths (least, median, most frames) and
            classes, a list of {name, videos}; complete once `problems` has come to its end.
    """

    list_file: str | PathLike
    root: str | PathLike | None = None
    classes: str | PathLike | Sequence[str] | None = None
    num_classes: int | None = None
    summary: dict = field(default_factory=dict, init=False)

    def problems(
        self,
        depth: str = "open",
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Problem]:
        """Yield everything that is wrong.

        Args:
            depth: "exists" looks for the files; "open" opens them and finds their frames, too;
                "decode" decodes all of them, which finds also what breaks half-way.
            workers: how many threads read.
            progress: is told the number of videos read and that of all, from time to time.
        """
        try:
            videos, lines, problems = list_problems(
                self.list_file, self.root, self.classes, self.num_classes
            )
        except DataError as error:
            yield Problem("file", str(error))
            return
        yield from problems
        counts = np.bincount(videos.labels, minlength=len(videos.class_names)).tolist()
        yield from self._absent_classes(videos.class_names, counts)
        yield from self._duplicates(videos, lines)
        lengths: list[int] = []
        for start in range(0, len(videos), _BLOCK):
            block = range(start, min(start + _BLOCK, len(videos)))
            yield from self._inspect(videos, lines, block, depth, workers, lengths)
            if progress is not None:
                progress(block.stop, len(videos))
        self.summary = _summarise(videos.class_names, counts, lengths)

    def _inspect(
        self, videos: VideoList, lines: np.ndarray, block: range, depth: str, workers: int, lengths
    ) -> Iterator[Problem]:
        def inspect(index: int) -> tuple[int, list[Finding]]:
            return inspect_video(videos[index]["file_name"], depth)

        for index, (length, findings) in in_threads(inspect, block, workers):
            if length:
                lengths.append(length)
            for severity, text in findings:
                missing = text.startswith("There is no video")
                where = f"{self.list_file}: line {lines[index]}"
                kind = "video-missing" if missing else "video-damaged"
                yield Problem(kind, f"{where}: {text}", severity, index)

    def _absent_classes(self, names: Sequence[str], counts: Sequence[int]) -> Iterator[Problem]:
        for number, (name, count) in enumerate(zip(names, counts)):
            if not count:
                text = f"{self.list_file}: no video has class {number} ({name}): it is not learned."
                yield Problem("class-absent", text, "warning")

    def _duplicates(self, videos: VideoList, lines: np.ndarray) -> Iterator[Problem]:
        seen: dict[str, int] = {}
        for index, record in enumerate(videos):
            first = seen.setdefault(record["file_name"], index)
            if first != index:
                labels = videos.labels[first], videos.labels[index]
                other = labels[0] != labels[1]
                but = f", with label {labels[0]} instead of {labels[1]}" if other else ""
                text = (
                    f"{self.list_file}: line {lines[index]}: {record['file_name']} stands in line "
                    f"{lines[first]}, too{but}: remove one of them."
                )
                yield Problem("duplicate-file", text, "error" if other else "warning", index)


def inspect_video(path: str, depth: str = "open") -> tuple[int, list[Finding]]:
    """Look at a video file, or a folder of frames.

    Args:
        path: the file or the folder.
        depth: as of `VideoCheck.problems`.

    Returns:
        its number of frames, 0 where that is not found; what is wrong, severities and sentences.
    """
    if depth == "exists":
        missing = not os.path.exists(path)
        return 0, [("error", f"There is no video {path}: correct the path.")] if missing else []
    try:
        with open_video(path) as video:
            length = len(video)
            if depth != "decode":
                return length, []
            decode = _decode_folder if isinstance(video, FrameFolder) else _decode_file
            return length, decode(path, video)
    except DataError as error:
        return 0, [("error", str(error))]


def _decode_folder(path: str, frames: FrameFolder) -> list[Finding]:
    findings = []
    for number in range(len(frames)):
        try:
            frames.read([number])
        except DataError as error:
            findings.append(("error", str(error)))
    return findings


def _decode_file(path: str, video: VideoFile) -> list[Finding]:
    """Decode all of a file, once, to its end or the first damage."""
    count = patched = 0
    container, stream = open_container(path)
    try:
        for frame in container.decode(stream):
            count += 1
            patched += frame.is_corrupt
    except av_errors() as error:
        text = (
            f"{path} has {len(video)} frames, but cannot be decoded after frame {count} "
            f"({reason_of(error)}): it is cut off or damaged there; fetch or export it anew."
        )
        return [("error", text)]
    finally:
        container.close()
    if count < len(video):
        text = f"only {count} of the {len(video)} frames of {path} can be decoded: fetch it anew."
        return [("error", text)]
    if patched:
        text = (
            f"{patched} of the {count} frames of {path} are damaged and patched up by the decoder: "
            "fetch it anew."
        )
        return [("warning", text)]
    return []


def _summarise(names: Sequence[str], counts: Sequence[int], lengths: list[int]) -> dict:
    spread = {}
    if lengths:
        median = statistics.median_low(lengths)
        spread = {"least": min(lengths), "median": median, "most": max(lengths)}
    return {
        "videos": sum(counts),
        "frames": sum(lengths),
        "lengths": spread,
        "classes": [{"name": name, "videos": n} for name, n in zip(names, counts)],
    }


def describe_video_summary(summary: dict, all_classes: bool = False) -> list[str]:
    """The lines of a report on `VideoCheck.summary`."""
    lines = [f"{summary['videos']:,} videos"]
    if summary["lengths"]:
        spread = ", ".join(f"{name} {value:,}" for name, value in summary["lengths"].items())
        lines.append(f"{summary['frames']:,} frames; frames a video: {spread}")
    classes = summary["classes"]
    shown = classes if all_classes else classes[:MAX_CLASSES]
    width = max([5, *(min(len(c["name"]), 40) for c in shown)])
    lines += [f"{len(classes):,} classes:", f"  {'class':{width}}   videos"]
    lines += [f"  {c['name'][:40]:{width}}  {c['videos']:>7,}" for c in shown]
    if len(classes) > len(shown):
        lines.append(f"  ... and {len(classes) - len(shown):,} more (--all shows them)")
    return lines
