"""An empty qcow2 overlay, written directly: it is some hundred bytes, and starting qemu-img to write them would cost a fork its head start.

The file names no backing file: the chain of layers is given to QEMU on its command line, so that layers may be linked and moved.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

CLUSTER_BITS = 16
_CLUSTER = 1 << CLUSTER_BITS
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_COVERED_BY_L1_ENTRY = _CLUSTER * (_CLUSTER // 8)


def write_empty(path: Path, size: int) -> None:
    """Make `path`, which must not exist, a disk of `size` bytes that has nothing of its own yet."""
    l1_entries = -(-size // _COVERED_BY_L1_ENTRY)
    used = 3 + -(-l1_entries * 8 // _CLUSTER)  # header, refcount table, refcount block, first-level table
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, _header(size, l1_entries), 0)
        os.pwrite(fd, struct.pack(">Q", 2 * _CLUSTER), _CLUSTER)
        os.pwrite(fd, struct.pack(f">{used}H", *[1] * used), 2 * _CLUSTER)
        os.ftruncate(fd, used * _CLUSTER)
    finally:
        os.close(fd)


def _header(size: int, l1_entries: int) -> bytes:
    return _HEADER.pack(
        b"QFI\xfb",
        3,  # version
        0,  # no name of a backing file ...
        0,  # ... of length 0
        CLUSTER_BITS,
        size,
        0,  # not encrypted
        l1_entries,
        3 * _CLUSTER,
        _CLUSTER,
        1,  # cluster of refcount table
        0,  # no internal snapshots ...
        0,
        0,  # no incompatible features
        0,  # no compatible features
        0,  # no autoclear features
        4,  # refcounts of 16 bits
        _HEADER.size,
    )
