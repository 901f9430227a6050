"""Checkpoints by a published name or an address: fetched once into a cache, whole or not at all."""

import hashlib
import logging
import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from iopath.common.file_io import PathHandler, file_lock, get_cache_dir
from portalocker.exceptions import BaseLockException
from tqdm import tqdm

from .. import __version__
from ..d2.utils.file_io import PathManager
from ..errors import CheckpointError
from ..files import atomic_write
from .published import PUBLISHED, Published
from .reading import first_line, read_checkpoint
from .weights import recognise

__all__ = ["BASE_URL", "BASE_VARIABLE", "locate"]

logger = logging.getLogger(__name__)

# Where the published files are, and what says where else: an address or a folder.
BASE_URL = "https://github.com/Cominder/Iwin-Transformer/releases/download/v1.0/"
BASE_VARIABLE = "IWIN_D2_WEIGHTS_URL"

_CHUNK = 1 << 20
_SILENCE = 60  # seconds that a server may say nothing


def locate(
    source: str | os.PathLike,
    *,
    base_url: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> str:
    """Return the path of a checkpoint file, fetching it if it is not here yet.

    Args:
        source: a file; an address; or a published name, such as "iwin_tiny_patch4_window7_224".
        base_url: where published files are, an address or a folder; None takes
            IWIN_D2_WEIGHTS_URL, or else the authors' address.
        cache_dir: where fetched files are kept; None takes iopath's ($FVCORE_CACHE, or else
            ~/.torch/iopath_cache).

    Raises:
        CheckpointError: there is no such file or name, or it cannot be fetched.
    """
    name = os.fspath(source)
    if "://" in name:
        return _from_address(name, base_url, cache_dir)
    if os.path.isfile(name):
        return name
    published = PUBLISHED.get(name.removesuffix(".pth"))
    if published is not None:
        return _published(published, base_url, cache_dir)
    if os.path.isdir(name):
        raise CheckpointError(f"There is no checkpoint {name} (it is a folder): correct the path.")
    near = get_close_matches(Path(name).stem, PUBLISHED, n=1, cutoff=0.8)
    hint = f"; the published name nearest to it is {near[0]}" if near else ""
    raise CheckpointError(f"There is no checkpoint {name}: correct the path{hint}.")


class PublishedHandler(PathHandler):
    """iwin://NAME is the published checkpoint NAME for iopath's PathManager."""

    PREFIX = "iwin://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        self._check_kwargs(kwargs)
        return locate(path.removeprefix(self.PREFIX))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs) -> IO:
        return open(self._get_local_path(path, **kwargs), mode, buffering)


PathManager.register_handler(PublishedHandler())


def _from_address(address: str, base_url: str | None, cache_dir: str | os.PathLike | None) -> str:
    if address.startswith(PublishedHandler.PREFIX):
        return locate(
            address.removeprefix(PublishedHandler.PREFIX), base_url=base_url, cache_dir=cache_dir
        )
    if address.startswith(("http://", "https://")):
        hint = "check address and network, or give a file"
        return str(_fetch(address, _cached(address, cache_dir), lambda path: None, hint))
    try:  # another of the framework's, such as detectron2://
        path = PathManager.get_local_path(address)
        if not os.path.isfile(path):
            raise OSError("there is nothing that reads such addresses")
    except (OSError, AssertionError, ValueError) as error:
        raise CheckpointError(
            f"{address} cannot be fetched ({first_line(error)}): check address and network, or "
            "give a file."
        ) from error
    return path


def _published(
    published: Published, base_url: str | None, cache_dir: str | os.PathLike | None
) -> str:
    base = base_url or os.environ.get(BASE_VARIABLE) or BASE_URL
    if "://" not in base:
        path = os.path.join(base, published.file_name)
        if not os.path.isfile(path):
            raise CheckpointError(
                f"There is no {path}: put the published file there, or correct {BASE_VARIABLE}."
            )
        return path
    address = f"{base.rstrip('/')}/{published.file_name}"
    cached = _cached(address, cache_dir)
    hint = (
        f"check the network, set {BASE_VARIABLE} to an address or a folder that has it, or put "
        f"the file at {cached}"
    )
    return str(_fetch(address, cached, lambda path: _check_published(path, published), hint))


def _cached(address: str, cache_dir: str | os.PathLike | None) -> Path:
    """Where the file of an address is kept: under the address itself."""
    parts = urlsplit(address)
    words = [parts.netloc, *unquote(parts.path).split("/")]
    *folders, name = [re.sub(r"[^\w.-]", "_", word) for word in words if word.strip(".")]
    if parts.query:  # may say which file it is
        name = f"{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}_{name}"
    root = get_cache_dir(None if cache_dir is None else os.fspath(cache_dir))
    return Path(root, "iwin_d2", *folders, name[-200:])


def _fetch(address: str, cached: Path, check: Callable[[Path], None], hint: str) -> Path:
    """Fetch a checkpoint unless it is in the cache, where it comes only whole and checked.

    Of several processes one fetches, the others wait.

    Args:
        address: of the file.
        cached: its place in the cache.
        check: raises CheckpointError for a file, readable as a checkpoint, that is a wrong one.
        hint: what to do if it cannot be had.
    """
    if cached.is_file():
        return cached
    partial = cached.with_name(f"partial_{cached.name}")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(cached)):
            if cached.is_file():  # another process was faster
                return cached
            try:
                _download(address, partial)
                read_checkpoint(str(partial))
                check(partial)
                os.replace(partial, cached)
            finally:
                partial.unlink(missing_ok=True)
    except CheckpointError as error:
        raise CheckpointError(error.sentence.replace(str(partial), address)) from error
    except (OSError, HTTPException, BaseLockException, ValueError) as error:
        # urllib wraps what the network says.
        wrapped = type(error) is URLError and isinstance(error.reason, Exception)
        reason = first_line(error.reason if wrapped else error)
        raise CheckpointError(f"{address} cannot be fetched ({reason}): {hint}.") from error
    logger.info("Fetched %s into %s", address, cached)
    return cached


def _download(address: str, path: Path) -> None:
    """Write what an address gives into a file, showing the progress on stderr.

    Raises:
        OSError, HTTPException: it gives nothing, or not all it announced.
    """
    request = Request(address, headers={"User-Agent": f"iwin_d2/{__version__}"})
    # A proxy of the environment is used, as urllib does.
    with urlopen(request, timeout=_SILENCE) as response, atomic_write(path) as file:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        with tqdm(
            total=total,
            desc=path.name.removeprefix("partial_"),
            unit="B",
            unit_scale=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,
        ) as bar:
            done = 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
        if total is not None and done != total:
            raise OSError(f"it broke off after {done:,} of {total:,} bytes")


def _check_published(path: Path, published: Published) -> None:
    """Raise CheckpointError if a file is not the published one that it is named after."""
    weights = recognise(read_checkpoint(str(path)), published.file_name)
    if weights.provenance.published != published:
        raise CheckpointError(
            f"{path} is {weights.architecture}, not the published {published.name}: check what "
            f"{BASE_VARIABLE} names, and fetch it anew."
        )
