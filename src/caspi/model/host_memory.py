"""Memory of the host that is given back and asked for again at every step."""

from __future__ import annotations

import ctypes
import functools
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _PAD = 2**31 - 1, 64 * 2**20


@functools.cache
def keep_freed_memory() -> None:
    """Has the C library keep what is freed, for as long as the process lives. Otherwise every large tensor is new pages
    of the kernel's, zeroed at first touch: 45 % of a training step on a CPU (docs/log.md). Nothing where there is no
    glibc."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_M_TOP_PAD, _PAD)
