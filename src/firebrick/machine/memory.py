"""The memory of a running QEMU, as a file other machines can start from.

Every machine maps its memory privately (copy-on-write): a booted one over nothing, a restored one over the memory file of its snapshot. So the
pages a machine has changed are exactly its anonymous pages, /proc/PID/pagemap says which those are, and /proc/PID/mem has their content: saving
needs no help from QEMU, leaves the source as it was, and costs what has changed. The file of a snapshot is sparse: pages of zeros are not in it.

All of this works without root on one's own child processes. The functions block, for as long as it takes to copy; call them in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from firebrick.machine.errors import SnapshotError

PAGE = 4096
NO_FILE = Path("/dev/zero")
"""What a booted machine maps: private, so plain anonymous memory; named, so that it can be found in /proc/PID/maps."""

_CHUNK = 1 << 20
_FICLONE = 0x40049409
_ENTRY = 8
# The top byte of a pagemap entry: bit 63 present, 62 swapped, 61 a page of a file or shared. Anonymous: (present or swapped) and not of a file.
_ANONYMOUS = bytes(1 if flags & 0xC0 and not flags & 0x20 else 0 for flags in range(256))
_RUN = re.compile(b"\x01+")
_ZEROS = bytes(_CHUNK)


def save(pid: int, mapped: Path, size: int, target: Path, *, base: Path | None = None, diff: bool = False) -> int:
    """Write the memory of the paused QEMU `pid`, which maps `size` bytes of the file `mapped`, into the new file `target`: all of it, or with
    `diff` only the pages that are not those of the file any more, those that became zero included, and holes elsewhere. `base` is where the
    content of `mapped` can be read, when that is not its name.

    Returns how many bytes of it were the machine's own. Raises SnapshotError when the process is gone, OSError when there is no space."""
    try:
        start = _find_mapping(pid, mapped, size)
        with (
            _opened(f"/proc/{pid}/mem", os.O_RDONLY) as memory,
            _opened(target, os.O_RDWR | os.O_CREAT | os.O_EXCL) as out,
        ):
            os.ftruncate(out, size)
            fresh = mapped == NO_FILE
            if not fresh and not diff:
                _copy_file(base or mapped, out)
            return sum(
                _copy_range(memory, start, low, high, out, skip_zeros=fresh and not diff)
                for low, high in private_ranges(pid, start, size)
            )
    except (ProcessLookupError, FileNotFoundError) as error:
        raise SnapshotError(f"cannot save the memory of process {pid}: it has ended") from error


def private_ranges(pid: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The runs of pages a process has for itself in the mapping at `start`, as offsets in bytes."""
    with _opened(f"/proc/{pid}/pagemap", os.O_RDONLY) as pagemap:
        entries = _read(pagemap, size // PAGE * _ENTRY, start // PAGE * _ENTRY)
    for run in _RUN.finditer(entries[_ENTRY - 1 :: _ENTRY].translate(_ANONYMOUS)):
        yield run.start() * PAGE, run.end() * PAGE


def _find_mapping(pid: int, mapped: Path, size: int) -> int:
    name = str(mapped)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].removesuffix(" (deleted)") == name:
            low, high = (int(x, 16) for x in fields[0].split("-"))
            if high - low == size:
                return low
    raise SnapshotError(f"cannot save the memory of process {pid}: it maps no {size} bytes of {mapped}")


def _copy_range(memory: int, start: int, low: int, high: int, out: int, *, skip_zeros: bool) -> int:
    """Copy [low, high) of the guest's memory into `out`. With `skip_zeros` holes stay holes: right only where nothing was below."""
    written = 0
    for offset in range(low, high, _CHUNK):
        data = _read(memory, min(_CHUNK, high - offset), start + offset)
        if not skip_zeros:
            written += _write(out, data, offset)
        elif data != _ZEROS[: len(data)]:
            written += _write_sparse(out, data, offset)
    return written


def _write_sparse(out: int, data: bytes, offset: int) -> int:
    """Write the pages of `data` that are not all zeros, each run of them in one go."""
    zero = _ZEROS[:PAGE]
    used = bytes(data[i : i + PAGE] != zero for i in range(0, len(data), PAGE))
    return sum(
        _write(out, data[r.start() * PAGE : r.end() * PAGE], offset + r.start() * PAGE) for r in _RUN.finditer(used)
    )


def _copy_file(source: Path, out: int) -> None:
    """Make `out` a copy of a sparse file: shared blocks where the file system can, else its data, not its holes."""
    with _opened(source, os.O_RDONLY) as base:
        try:
            fcntl.ioctl(out, _FICLONE, base)
        except OSError:
            for low, high in data_extents(base, os.fstat(base).st_size):
                _copy_extent(base, out, low, high)


def copy_sparse(source: Path, target: Path, *, mode: int = 0o400) -> None:
    """Copy a sparse file to the new file `target`, which by default can only be read. It has its mode before its name can have become another's."""
    with _opened(target, os.O_RDWR | os.O_CREAT | os.O_EXCL) as out:
        os.ftruncate(out, source.stat().st_size)
        _copy_file(source, out)
        os.fchmod(out, mode)


def overlay(source: Path, ranges: Iterable[tuple[int, int]], target: Path) -> None:
    """Write the `ranges` of the file `source` over those of `target`: shared blocks where the file system can, else copied ones."""
    with _opened(source, os.O_RDONLY) as base, _opened(target, os.O_RDWR) as out:
        for low, high in ranges:
            _copy_extent(base, out, low, high)


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data, as [low, high) in bytes."""
    high = 0
    while high < size:
        try:
            low = os.lseek(fd, high, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        high = os.lseek(fd, low, os.SEEK_HOLE)
        yield low, high


def _copy_extent(base: int, out: int, low: int, high: int) -> None:
    while low < high:
        try:
            low += os.copy_file_range(base, out, high - low, low, low)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            low += _write(out, os.pread(base, min(_CHUNK, high - low), low), low)


def _read(fd: int, length: int, offset: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:  # the address space is gone: the process has ended
            raise ProcessLookupError("the process has ended")
        data += more
    return data


def _write(fd: int, data: bytes, offset: int) -> int:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return len(data)


@contextlib.contextmanager
def _opened(path: str | Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
