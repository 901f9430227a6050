"""Pictures written to files, and lists of them to look through."""

import csv
import html
import io
import os
import re
from collections.abc import Sequence, Sized
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ..errors import DataError
from ..files import atomic_write

__all__ = ["number_of", "picture_name", "save_picture", "write_csv", "write_html"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 24px; }}
img {{ max-width: 100%; border: 1px solid #ccc; margin: 4px 0 28px; }}
p {{ color: #555; }}
</style>
<h1>{title}</h1>
<p>{remark}</p>
{items}
</html>
"""


def save_picture(picture: Image.Image, path: str | os.PathLike) -> str:
    """Write a PNG file, whole or not at all, and the folder for it; return its path.

    Raises:
        DataError: it cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            picture.save(file, format="PNG")
    except OSError as error:
        raise DataError(
            f"the picture {path} cannot be written ({error.strerror or error}): check that the "
            "folder exists and may be written to."
        ) from error
    return str(path)


def write_html(folder: Path, title: str, remark: str, pictures: Sequence[tuple[str, str]]) -> Path:
    """Write index.html: pictures of the folder, (file name, caption), under each other."""
    items = "\n".join(
        f'<h3>{html.escape(caption)}</h3>\n<img src="{quote(name)}" loading="lazy">'
        for name, caption in pictures
    )
    page = _PAGE.format(title=html.escape(title), remark=html.escape(remark), items=items)
    return _write(folder / "index.html", page)


def write_csv(folder: Path, rows: Sequence[dict]) -> Path:
    """Write index.csv: at least one row, all with the same columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _write(folder / "index.csv", text.getvalue())


def picture_name(number: int, image_file: str) -> str:
    """A file name for picture `number` of an image, such as 0007_street.png."""
    stem = re.sub(r"[^\w.-]+", "_", Path(image_file).stem)
    return f"{number:04d}_{stem[:80]}.png"


def number_of(things: Sized | int, noun: str) -> str:
    """How many, with the noun: "1 object", "2 objects"."""
    count = things if isinstance(things, int) else len(things)
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _write(path: Path, text: str) -> Path:
    try:
        with atomic_write(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): check that the folder may be "
            "written to."
        ) from error
    return path
