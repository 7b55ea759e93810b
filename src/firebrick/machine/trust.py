"""Which snapshots were read through on this host, so that it is done once.

A snapshot is verified when it is restored for the first time: every file is read and its digest compared. Then `<cache>/verified/` says so, and
while each file is the one that was read (device, inode, size, time of change), it is not read again. The time the inode changed is not
compared: every machine gives the files names of its own, and each name changes it. The record is the host's, not the snapshot's: it does not
travel with the files. Who can forge it owns the home, and with it every snapshot there; against its owner nothing here is meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from firebrick.machine import digest
from firebrick.machine.drafts import draft_name, sweep_drafts
from firebrick.machine.errors import SnapshotError

if TYPE_CHECKING:
    from firebrick.machine.snapshot import Snapshot

_DIRECTORY = "verified"

_Identity = tuple[int, int, int, int]


class _Record(msgspec.Struct, frozen=True):
    """`manifest` is the digest of the snapshot's record; `files` are what was read, by name."""

    path: str
    manifest: str
    files: Mapping[str, _Identity]


def verify(snapshot: Snapshot, cache: Path) -> None:
    """See that each file of the snapshot, and of those it is laid over, is the one that was saved. Reads what was not read before, which takes
    a second for a gigabyte or so: call it in a thread. Raises SnapshotError, with the name of the file that is another."""
    for link in snapshot.chain:
        if not is_trusted(link, cache):
            before = _identities(link)
            _read_through(link)
            _write(link, before, cache)


def trust(snapshot: Snapshot, cache: Path) -> None:
    """Note that the files of a snapshot are as they were saved: for who has just saved them."""
    _write(snapshot, _identities(snapshot), cache)


def is_trusted(snapshot: Snapshot, cache: Path) -> bool:
    """Whether the files of this link of a chain were read through, and are the same files still."""
    try:
        record = msgspec.json.decode(_file(snapshot, cache).read_bytes(), type=_Record)
    except (OSError, msgspec.MsgspecError):
        return False
    return record.manifest == snapshot.digest and record.files == _identities(snapshot)


def _identities(snapshot: Snapshot) -> dict[str, _Identity]:
    found: dict[str, _Identity] = {}
    for name in snapshot.files:
        with contextlib.suppress(FileNotFoundError):  # the digest says it better
            facts = (snapshot.path / name).stat()
            found[name] = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return found


def _read_through(snapshot: Snapshot) -> None:
    for name, part in snapshot.files.items():
        try:
            same = part.digest is not None and digest.of_file(snapshot.path / name) == part.digest
        except OSError as error:
            raise SnapshotError(f"cannot restore {snapshot.path}: {name}: {error.strerror or error}") from error
        if not same:
            raise SnapshotError(
                f"cannot restore {snapshot.path}: {snapshot.path / name} is not what was saved: it was changed or damaged since",
                hint="Take the snapshot anew, or bring the file back.",
            )


def _file(snapshot: Snapshot, cache: Path) -> Path:
    return cache / _DIRECTORY / hashlib.sha256(os.fsencode(snapshot.path.absolute())).hexdigest()[:32]


def _write(snapshot: Snapshot, files: Mapping[str, _Identity], cache: Path) -> None:
    file = _file(snapshot, cache)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_gone(file.parent)
    draft = file.with_name(draft_name(file.name))
    draft.write_bytes(msgspec.json.encode(_Record(str(snapshot.path.absolute()), snapshot.digest, files)))
    draft.replace(file)


def _forget_gone(records: Path) -> None:
    """Records of snapshots that are not there any more."""
    sweep_drafts(records)
    for file in records.iterdir():
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if not Path(msgspec.json.decode(file.read_bytes(), type=_Record).path).exists():
                file.unlink()
