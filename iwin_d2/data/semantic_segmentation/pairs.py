"""Images and their label images, found in folders by their names."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from ..image_check import IMAGE_SUFFIXES
from ..problems import Problem

__all__ = ["Folders", "Pair", "find_pairs"]


@dataclass(frozen=True)
class Folders:
    """Where the files of a data set lie, and how they are named.

    Attributes:
        images: the folder of the images; subfolders are searched, too.
        labels: the folder of the label images, with the same subfolders.
        image_suffix: what the names of images end in, such as "_leftImg8bit.png"; the rest is the
            name that they share with their labels. None: any suffix of image files.
        label_suffix: likewise, of label images.
        list_file: a text file that lists the images to take, one a line: their paths in the folder
            without the suffix. None: all.
    """

    images: str
    labels: str
    image_suffix: str | None = None
    label_suffix: str | None = None
    list_file: str | None = None


@dataclass(frozen=True)
class Pair:
    """An image and its label image.

    Attributes:
        name: what their paths share: in the folder, without the suffix, with forward slashes.
        image: the path of the image.
        label: that of its labels.
    """

    name: str
    image: str
    label: str


def find_pairs(folders: Folders) -> tuple[list[Pair], list[Problem]]:
    """Find the images and their labels; return the pairs, ordered by name, and what is wrong.

    Nothing but names is looked at.
    """
    problems: list[Problem] = []
    one_folder = os.path.realpath(folders.images) == os.path.realpath(folders.labels)
    if one_folder and not (folders.image_suffix and folders.label_suffix):
        text = (
            f"{folders.images} is the folder of both images and labels: say by image_suffix and "
            "label_suffix what their names end in, or keep them in two folders."
        )
        return [], [Problem("structure", text)]
    images = _search(folders, "image", problems)
    labels = _search(folders, "label", problems)
    if problems:
        return [], problems
    wanted = images
    if folders.list_file is not None:
        names = _listed(folders.list_file, problems)
        for name in (name for name in names if name not in images):
            problems.append(_not_there(name, folders))
        wanted = {name: images[name] for name in names if name in images}
    elif not images:
        return [], [_nothing_found(folders)]
    if wanted and wanted.keys().isdisjoint(labels):
        return [], [*problems, _no_label_at_all(wanted, labels, folders)]
    missing = [name for name in wanted if name not in labels]
    lower = {name.lower(): path for name, path in labels.items()} if missing else {}
    problems += [_no_label(name, wanted[name], lower, folders) for name in missing]
    if folders.list_file is None:
        for name in (name for name in labels if name not in images):
            text = f"{labels[name]} has no image of the same name in {folders.images}: it is not "
            problems.append(Problem("label-unused", f"{text}used.", "warning", name))
    pairs = [Pair(name, wanted[name], labels[name]) for name in sorted(wanted) if name in labels]
    return pairs, problems


def _search(folders: Folders, what: str, problems: list[Problem]) -> dict[str, str]:
    """The files of one kind by name; adds to the problems."""
    root = folders.images if what == "image" else folders.labels
    other = folders.labels if what == "image" else folders.images
    suffix = folders.image_suffix if what == "image" else folders.label_suffix
    if not os.path.isdir(root):
        text = f"the {what} folder {root} does not exist: check the path (relative paths start at "
        problems.append(Problem(f"{what}-missing", f"{text}{os.getcwd()})."))
        return {}
    found: dict[str, str] = {}
    for relative in _files(root, other):
        stem, ending = os.path.splitext(relative)
        if suffix is not None:
            if not relative.endswith(suffix):
                continue
            stem = relative[: -len(suffix)]
        elif ending.lower() not in IMAGE_SUFFIXES:
            continue
        name, path = stem.replace(os.sep, "/"), os.path.join(root, relative)
        if name in found:
            first, second = sorted([found[name], path])
            text = (
                f"{first} and {second} differ in their suffix alone, so which is the {what} is not "
                f"clear: remove one, or set {what}_suffix."
            )
            problems.append(Problem("duplicate-name", text, image_id=name))
        found.setdefault(name, path)
    return found


def _files(root: str, other: str) -> Iterator[str]:
    """The paths of all files below a folder, except below the other one; hidden files left out."""
    other, seen = os.path.realpath(other), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or (real == other and folder != root):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = os.path.relpath(folder, root)
        prefix = "" if prefix == "." else os.path.join(prefix, "")
        yield from (prefix + name for name in names if not name.startswith("."))


def _listed(list_file: str, problems: list[Problem]) -> list[str]:
    """The names in a list file, each once; adds to the problems."""
    try:
        with open(list_file, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        text = f"the list of images {list_file} cannot be read ({reason}): check the path."
        problems.append(Problem("file", text))
        return []
    names = [line for line in lines if line]
    if not names:
        problems.append(Problem("empty", f"the list of images {list_file} is empty."))
    counts = Counter(names)
    for name in (name for name, count in counts.items() if count > 1):
        text = f"{list_file} lists {name} {counts[name]} times: list it once."
        problems.append(Problem("duplicate-name", text, image_id=name))
    return list(counts)


# ---- sentences ----------------------------------------------------------------------------------


def _nothing_found(folders: Folders) -> Problem:
    suffix = folders.image_suffix
    wanted = f"ending in {suffix}" if suffix else f"({', '.join(sorted(IMAGE_SUFFIXES))})"
    others = sorted({os.path.splitext(path)[1] for path in _files(folders.images, folders.labels)})
    there = f"its files end in {', '.join(others[:5])}" if others else "it is empty"
    text = f"the image folder {folders.images} has no images {wanted}: {there}; check the path."
    return Problem("empty", text)


def _not_there(name: str, folders: Folders) -> Problem:
    hint = ""
    if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
        hint = " (it lists names without their suffix)"
    text = f"{folders.list_file} lists {name}, which {folders.images} has no image of{hint}: "
    return Problem("image-missing", f"{text}correct the list, or add the image.", image_id=name)


def _no_label_at_all(images: dict[str, str], labels: dict[str, str], folders: Folders) -> Problem:
    """The one sentence where the names of images and labels follow different rules."""
    name = min(images)
    if not labels:
        endings = f"ending in {folders.label_suffix}" if folders.label_suffix else "(PNG, ...)"
        text = f"the label folder {folders.labels} has no label images {endings}: check the path."
        return Problem("label-missing", text)
    near = _nearest(name, labels)
    text = (
        f"none of the {len(images):,} images in {folders.images} has a label of the same name in "
        f"{folders.labels} (there are {images[name]} and {near}, for example)"
    )
    return Problem("label-missing", f"{text}: {_how_to_name(name, near, folders)}.", image_id=name)


def _no_label(name: str, image: str, lower: dict[str, str], folders: Folders) -> Problem:
    """An image without a label; `lower` has the labels by their names in lower case."""
    suffix = folders.label_suffix or ".png"
    missing = os.path.join(folders.labels, *name.split("/")) + suffix
    text = f"{image} has no label image ({missing} does not exist)"
    hint = "add it, or take the image out of its folder"
    if name.lower() in lower:
        hint = f"there is {lower[name.lower()]}, so correct upper and lower case"
    return Problem("label-missing", f"{text}: {hint}.", image_id=name)


def _nearest(name: str, labels: dict[str, str]) -> str:
    """The label file whose name is most like an image's."""
    longer = [label for label in labels if label.startswith(name)]
    some = sorted(labels)[:1000]
    near = longer or get_close_matches(name, some, n=1, cutoff=0.0) or some
    return labels[near[0]]


def _how_to_name(name: str, label: str, folders: Folders) -> str:
    relative = os.path.relpath(label, folders.labels).replace(os.sep, "/")
    if relative.startswith(name) and folders.label_suffix is None:
        return f"set label_suffix={relative[len(name) :]}"
    return (
        "give both the same name up to the suffix, or say by image_suffix and label_suffix what "
        "the names end in"
    )
