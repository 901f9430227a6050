"""Reading COCO json files: fast, small in memory, and saying what keeps a file from being read."""

import json
import mmap
import os
import re

from ..errors import DataError
from .memory import paused_gc

__all__ = ["read_coco_json", "read_single_list"]

# So many different numbers are shared: those of two decimals up to 2,600, say.
_MAX_SHARED_NUMBERS = 2**18


class _SharedNumbers(dict):
    """text -> number, the same object for the same text.

    Coordinates repeat: at COCO's size, sharing them saves 1.4 GB of float objects.
    """

    def __missing__(self, text: str) -> float:
        value = float(text)
        if len(self) < _MAX_SHARED_NUMBERS:
            self[text] = value
        return value


def read_coco_json(json_file: str | os.PathLike, what: str = "annotation file") -> object:
    """Parse a json file; a DataError says what keeps it from being read, calling it `what`."""
    try:
        with open(json_file, encoding="utf-8") as file, paused_gc():
            return json.load(file, parse_float=_SharedNumbers().__getitem__)
    except FileNotFoundError:
        raise DataError(
            f"{what} {json_file} does not exist: check the path (relative paths start at "
            f"{os.getcwd()})."
        ) from None
    except json.JSONDecodeError as error:
        if error.doc.startswith("\ufeff"):
            raise DataError(
                f"{what} {json_file} begins with a byte order mark, which json has not: save it "
                "as UTF-8 without BOM."
            ) from None
        if not error.doc.strip():
            raise DataError(f"{what} {json_file} is empty.") from None
        raise DataError(
            f"{what} {json_file} is not json: {error.msg} at line {error.lineno}, column "
            f"{error.colno}; was it copied completely?"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {json_file} is not json: byte {error.start} is not UTF-8 text: save "
            "it as UTF-8, if it is the right file."
        ) from None
    except RecursionError:
        raise DataError(f"{what} {json_file} is not COCO: it nests too deeply.") from None
    except ValueError as error:  # Python refuses numbers of more than 4,300 digits
        raise DataError(
            f"{what} {json_file} is not COCO: {str(error).partition(';')[0]}."
        ) from None
    except OSError as error:
        raise DataError(f"{what} {json_file} cannot be read: {error.strerror or error}.") from None


def read_single_list(json_file: str | os.PathLike, key: str) -> list | None:
    """Read the one list under a key of a json file without parsing the rest of the file.

    Returns:
        None where that cannot be done for sure: the file has no such key or several, or cannot be
        read. Then `read_coco_json` knows more.
    """
    quoted = json.dumps(key).encode()
    try:
        with (
            open(json_file, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            start = content.find(quoted)
            if start < 0 or content.find(quoted, start + 1) >= 0:
                return None
            return _list_at(content, start + len(quoted))
    except (OSError, ValueError):  # no such file, an empty one
        return None


def _list_at(content: mmap.mmap, start: int) -> list | None:
    """Parse the list after the colon at `start`, looking at no more of the file than it takes."""
    window = 2**16
    while True:
        text = content[start : start + window].decode("utf-8", errors="ignore")
        colon = re.match(r"\s*:\s*", text)
        if colon:
            try:
                value, _ = json.JSONDecoder().raw_decode(text, colon.end())
                return value if isinstance(value, list) else None
            except (ValueError, RecursionError):
                pass  # cut off within the list, perhaps
        if start + window >= len(content):
            return None
        window *= 16
