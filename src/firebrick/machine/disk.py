"""The scratch disk of a machine: layers, of which only the last is ever written.

    scratch.0.raw      an empty ext4 of this size, made once per host and size, shared by all machines
    scratch.1.qcow2    what the machine wrote until its first snapshot
    scratch.2.qcow2    ... and since

A snapshot seals the last layer and lays a new one over it; the sealed layers belong to the machine and the snapshot alike, as hard links where
they are on one file system, else as copies. So a snapshot is complete in its own directory, whoever of the others is removed first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from firebrick.machine import memory, qcow2
from firebrick.machine.errors import HostError
from firebrick.process import ProcessError, run

_MIB = 1 << 20
_FORMAT = 1  # of the empty file system: raise it when the options below change


async def empty_filesystem(cache: Path, mib: int) -> Path:
    """The empty ext4 of this size: made on first use, then the same file for ever. Raises HostError."""
    path = cache / f"scratch-{mib}m-{_FORMAT}.ext4"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = cache / f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            await _format(draft, mib)
            draft.chmod(0o444)
            _link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return path


def _link(draft: Path, path: Path) -> None:
    """Who comes second keeps the file of the first: machines are using it already."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return


async def _format(path: Path, mib: int) -> None:
    """No journal and no checksums: the disk does not outlive its machine. Inode tables are zeroed now, as holes, not by the guest later."""
    with path.open("xb") as file:
        file.truncate(mib * _MIB)
    options = [
        "-q",
        "-F",
        "-m",
        "0",
        "-b",
        "4096",
        "-O",
        "^has_journal,^resize_inode,^metadata_csum",
        "-E",
        "lazy_itable_init=0,nodiscard",
    ]
    try:
        await run(["mkfs.ext4", *options, path], timeout=120, hint="Install the package e2fsprogs.")
    except ProcessError as error:
        raise HostError(f"cannot make an empty scratch disk of {mib} MiB: {error}", hint=error.hint) from error


def seal(layers: Sequence[Path], target: Path) -> None:
    """Make sealed layers part of the directory `target`, under their own names."""
    for layer in layers:
        share(layer, target / layer.name)


def share(source: Path, target: Path) -> None:
    """One more name for a file that is never changed again, or a copy where it cannot have one there."""
    try:
        os.link(source, target)
    except OSError:
        memory.copy_sparse(source, target)


def add_layer(layers: Sequence[Path], directory: Path, mib: int) -> Path:
    """A new, empty last layer in `directory`."""
    path = directory / f"scratch.{len(layers)}.qcow2"
    qcow2.write_empty(path, mib * _MIB)
    return path
