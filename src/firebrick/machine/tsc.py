"""How fast this processor's time stamp counter runs.

An emulated guest reads the host's counter, and Debian's kernel has no way to find its rate on the microvm machine type: without legacy timers it
measures against the emulated PIT, and when the host is busy at that moment the measurement fails and the kernel waits for ever for a tick that never
comes (one boot in six on two busy cores). So the rate is measured here, where it is easy, and told to the kernel.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import time
from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_INTERVAL_S = 0.004
_ATTEMPTS = 16


@functools.cache
def rate_khz() -> int | None:
    """Ticks per millisecond, exact to some ten parts in a million; None where this process may not run made-up code. Takes 4 ms, once."""
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a hardened host
        return None
    memory.write(_READ)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    first_ns, first = _sample(read)
    time.sleep(_INTERVAL_S)
    second_ns, second = _sample(read)
    return round((second - first) * 1_000_000 / (second_ns - first_ns))


def _sample(read: Callable[[], int]) -> tuple[float, int]:
    """A moment on both clocks: of several attempts the one with the least time between the two readings of ours."""
    best: tuple[int, float, int] | None = None
    for _ in range(_ATTEMPTS):
        before = time.monotonic_ns()
        ticks = read()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) / 2, ticks)
    assert best is not None
    return best[1:]
