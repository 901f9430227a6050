"""What millions of records cost the garbage collector, and giving their memory back."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["paused_gc", "release_memory", "spare_gc"]

# From so many new objects on, a look through all of them is felt.
_MANY = 200_000


@contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the garbage collector from looking through millions of new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def spare_gc(objects: int) -> None:
    """Keep the garbage collector from looking through records while there are many.

    At COCO's size, one look takes some ten seconds. They are freed all the same once nothing refers
    to them. `release_memory` ends this.

    Args:
        objects: how many new objects there are, about.
    """
    if objects >= _MANY:
        gc.freeze()


def release_memory() -> None:
    """Give memory that became free back to the system, to be called when large objects are gone.

    glibc keeps freed memory for itself: after a large json that is gigabytes, of which data-loading
    workers, if they are forks, become co-owners. With another C library this does nothing.
    """
    gc.unfreeze()
    with suppress(AttributeError, OSError, TypeError):  # of musl, macOS, Windows
        ctypes.CDLL(None).malloc_trim(0)
