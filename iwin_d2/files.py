"""Files written whole or not at all."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# The names of the temporary files below.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file that takes the name `path` only once it is complete.

    The data is synced to disk before the rename, so after a crash or a kill `path` holds either
    what it held before or the whole new content. On any error the temporary file is removed.

    Args:
        path: the file to create or replace; its folder must exist.
        mode: "wb" or "w" (UTF-8).
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        # mkstemp makes private files; give what an ordinary open() would give.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: str | os.PathLike) -> list[Path]:
    """Remove what killed processes have left of `atomic_write` in a folder; return what it was.

    Nothing else may be writing there at the time.
    """
    found = [path for path in Path(folder).iterdir() if _TEMPORARY.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return found
