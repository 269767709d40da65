"""Avoids freeing and allocating the same host memory at every step."""

from __future__ import annotations

import ctypes
import functools
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _PAD = 2**31 - 1, 64 * 2**20


@functools.cache
def keep_freed_memory() -> None:
    """Makes the C library keep freed memory for as long as the process lives. Otherwise every large tensor gets new
    pages from the kernel, zeroed at first use: 45 % of a training step on a CPU (docs/log/2026-11-27.md). Without glibc
    it does nothing."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
        libc.mallopt(_M_TOP_PAD, _PAD)
