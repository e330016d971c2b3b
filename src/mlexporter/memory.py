"""Fits the garbage collector and the allocator to a process that decodes JSON in many threads, and stays small."""

import contextlib
import ctypes
import gc
from typing import Final

# of glibc's mallopt
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
_LARGE_BYTES: Final = 2 << 20
_KEPT_BYTES: Final = 4 << 20
_THRESHOLDS: Final = 100_000, 20, 20
_YOUNG: Final = 1
"""A generation of the garbage collector: what was made since it was last asked, and not all that the store has."""


def tune() -> None:
    """Set both up, once all that lives as long as the process was imported.

    A request makes thousands of containers that die with it: with the default threshold they set off a collection
    every few hundred, which costs a quarter of the decoding. The few that die in cycles wait for `give_back`.

    glibc gives each thread an arena of its own, which keeps what it once needed: two arenas serve as well, for Python's
    lock lets one thread allocate at a time. What is large is given back at once; left alone glibc learns from the first
    large body to keep the room of the next ones. What counting thousands of rows takes again and again, an array of 1.3
    MB among others, is not large, and not given back in between: new pages would cost a tenth of it.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_ARENA_MAX, 2)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Free what requests left in cycles, and hand free pages to the system: some milliseconds, every now and then.

    An answer of 404 leaves 8 kB in a cycle: at a few requests a second it would be an hour until there are enough of
    them for a collection. And the room between what lives long, which glibc keeps, grows for hours.
    """
    gc.collect(_YOUNG)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
