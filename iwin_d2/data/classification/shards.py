"""Images in tar files, as WebDataset has them, read in any order.

A tar file that is not compressed can be read from anywhere once it is known where its members
begin. So the images of shards are records like those of folders: shuffled over all of them, in an
order that a resumed training takes up.
"""

import functools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ...errors import DataError

__all__ = ["expand_braces", "load_shards", "read_member"]

_IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
_LABELS = ("cls", "json")
_OPEN_FILES = 32  # in each process
_THREADS = 8


def expand_braces(pattern: str) -> list[str]:
    """Expand "train-{000..127}.tar" and "{train,extra}.tar" as a shell does; lists, too.

    Raises:
        DataError: a range makes no sense.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    before, inside, after = pattern[: found.start()], found[1], pattern[found.end() :]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if span is None:
        choices = inside.split(",")
    else:
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise DataError(f"{{{inside}}} in {pattern} is an empty range: put the lesser first.")
        choices = [f"{number:0{len(span[1])}}" for number in range(first, last + 1)]
    return [text for choice in choices for text in expand_braces(f"{before}{choice}{after}")]


def load_shards(shards: str, num_classes: int | None = None) -> list[dict]:
    """Make the records of the images in WebDataset's shards.

    A sample is a group of members whose names differ in what follows their first dot: an image
    (jpg, png, webp) and its class, a whole number in a `.cls` member or under "label" in a
    `.json`.

    Args:
        shards: tar files, with braces: "train-{000000..000127}.tar".
        num_classes: labels must be less; None to take any.

    Returns:
        {"file_name": "shard.tar/name.jpg", "shard", "offset", "size", "label", "image_id"}.

    Raises:
        DataError: a shard is missing, damaged or compressed, or a sample lacks its image or class.
    """
    paths = expand_braces(str(shards))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        more = f" ({len(missing)} of {len(paths)} are missing)" if len(missing) > 1 else ""
        raise DataError(f"The shard {missing[0]} does not exist{more}: correct the pattern.")
    with ThreadPoolExecutor(_THREADS) as executor:
        records = [record for found in executor.map(_read_shard, paths) for record in found]
    for number, record in enumerate(records):
        record["image_id"] = number
        if num_classes is not None and not 0 <= record["label"] < num_classes:
            raise DataError(
                f"{record['file_name']} has the class {record['label']}, but there are "
                f"{num_classes}, 0 to {num_classes - 1}: correct it, or the number of classes."
            )
    return records


def read_member(record: dict) -> bytes:
    """Read the encoded image of a record of `load_shards`.

    Raises:
        DataError: the shard has changed since, or cannot be read.
    """
    try:
        data = os.pread(_open(record["shard"], os.getpid()), record["size"], record["offset"])
    except OSError as error:
        raise DataError(
            f"The shard {record['shard']} cannot be read ({error.strerror}): look at the disk."
        ) from error
    if len(data) < record["size"]:
        raise DataError(f"The shard {record['shard']} has become shorter: it has been changed.")
    return data


@functools.lru_cache(_OPEN_FILES)
def _opened(path: str, process: int):
    return open(path, "rb", buffering=0)  # the cache closes it


def _open(path: str, process: int) -> int:
    return _opened(path, process).fileno()


def _read_shard(path: str) -> list[dict]:
    """The records of one shard; only headers and labels are read."""
    records = []
    try:
        # "r:" refuses compressed files, from which nothing could be read but from the beginning.
        with tarfile.open(path, "r:") as shard:
            for key, members in _samples(shard, path):
                label = _label(shard, members, f"{path}/{key}")
                image = next((members[kind] for kind in _IMAGES if kind in members), None)
                if image is None:
                    raise DataError(
                        f"The sample {key} of {path} has no image ({', '.join(_IMAGES)}), but "
                        f"{', '.join(members)}: add it, or leave the sample out."
                    )
                records.append(
                    {
                        "file_name": f"{path}/{image.name}",
                        "shard": path,
                        "offset": image.offset_data,
                        "size": image.size,
                        "label": label,
                    }
                )
    except tarfile.ReadError as error:
        raise DataError(
            f"The shard {path} is no tar file, is compressed or cut off ({error}): give tar files "
            "that are not compressed, whole ones."
        ) from error
    return records


def _samples(shard: tarfile.TarFile, path: str) -> Iterator[tuple[str, dict]]:
    """The members of each sample, by what follows the first dot of their names."""
    key, members = None, {}
    for member in shard:
        if not member.isfile():
            continue
        folder, name = os.path.split(member.name)
        stem, _, kind = name.partition(".")
        if os.path.join(folder, stem) != key and members:
            yield key, members
            members = {}
        key = os.path.join(folder, stem)
        members[kind.lower()] = member
    if members:
        yield key, members


def _label(shard: tarfile.TarFile, members: dict, name: str) -> int:
    kind = next((kind for kind in _LABELS if kind in members), None)
    if kind is None:
        raise DataError(f"The sample {name} has no class (.cls or .json): add it.")
    text = shard.extractfile(members[kind]).read()
    try:
        return int(text) if kind == "cls" else int(json.loads(text)["label"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The class of {name} is {text[:40]!r}, which is no whole number: correct the sample."
        ) from error
