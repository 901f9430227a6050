"""Images in folders, a folder for each class."""

import os

from ...errors import DataError
from ..image_check import IMAGE_SUFFIXES

__all__ = ["image_folder_classes", "load_image_folder", "num_image_folder_classes"]


def image_folder_classes(root: str) -> list[str]:
    """The names of the classes: those of the folders in `root`, sorted; hidden ones left out.

    Raises:
        DataError: there is no such folder, or none in it.
    """
    try:
        with os.scandir(root) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"The image folder {root} cannot be read ({error.strerror}): correct the path."
        ) from error
    if not names:
        raise DataError(
            f"There is no folder in {root}: it should hold one for each class, with its images."
        )
    return sorted(names)


def num_image_folder_classes(root: str) -> int:
    """How many classes there are in `root`, for num_classes of a model."""
    return len(image_folder_classes(root))


def load_image_folder(root: str, same_classes_as: str | None = None) -> list[dict]:
    """Make the records of the images in the folders of `root`, and in the folders in those.

    Args:
        root: holds a folder for each class.
        same_classes_as: another such folder, that of the training set, whose classes must be these
            or more, and are counted there.

    Returns:
        {"file_name", "label", "image_id"} of each image, in the order of classes and file names.

    Raises:
        DataError: a folder cannot be read, a class has no image, or is not one of the training's.
    """
    classes = image_folder_classes(root)
    numbers = {name: number for number, name in enumerate(classes)}
    if same_classes_as is not None:
        known = image_folder_classes(same_classes_as)
        unknown = [name for name in classes if name not in known]
        if unknown:
            raise DataError(
                f"{root} has the class {unknown[0]!r}, which {same_classes_as} has not: classes "
                "are folders of the same names in both."
            )
        numbers = {name: number for number, name in enumerate(known)}
    records: list[dict] = []
    for name in classes:
        paths = _images_under(os.path.join(root, name))
        if not paths:
            raise DataError(
                f"The class folder {os.path.join(root, name)} has no image "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}): remove it, or put its images there."
            )
        records += [
            {"file_name": path, "label": numbers[name], "image_id": len(records) + i}
            for i, path in enumerate(paths)
        ]
    return records


def _images_under(folder: str) -> list[str]:
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        found += [
            os.path.join(place, name)
            for name in sorted(names)
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return found
