"""Files that are kept beside the repository: which of a tree are pointers to such, and what stands in their places.

git-lfs itself is not run, and its filter is not configured in the workspace: the image may not have it. Instead the index is told to take these files as
they are, so that git sees no change in them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from firebrick.confined import OutsideError, open_beneath
from firebrick.forge.address import Address
from firebrick.forge.errors import CloneLimitError
from firebrick.forge.lfs import Pointer, fetch_objects, parse_pointer
from firebrick.node.checkout.repository import Repository
from firebrick.task import shielded

_BLOCK: Final = 1 << 20
_FILTERED: Final = ":(attr:filter=lfs)"


async def put_objects(repository: Repository, root: Path, target: Path, addresses: Sequence[Address]) -> int:
    """Put into `target`, which is made, what the pointers among the files of `root` stand for, under their names; how many they are. `repository` has
    their index. Files of `root` that are such objects already stay. Raises CloneError for an object that cannot be had, CloneLimitError for more than
    the checkout may take."""
    pointers = await _pointers(repository)
    if not pointers:
        return 0
    kinds = await asyncio.to_thread(lambda: {name: _look(root, name, pointer) for name, pointer in pointers.items()})
    missing = {name: pointers[name] for name, is_pointer in kinds.items() if is_pointer}
    if missing:
        _check_size(repository, missing.values())
        objects = target.with_name(f"{target.name}.objects")
        objects.mkdir()
        await fetch_objects(addresses, missing.values(), objects)
        await shielded(asyncio.to_thread(_lay_out, root, objects, target, missing))
    data = b"".join(os.fsencode(name) + b"\0" for name, is_pointer in kinds.items() if is_pointer is not None)
    await repository.git.run("update-index", "--assume-unchanged", "-z", "--stdin", data=data)
    return len(missing)


async def _pointers(repository: Repository) -> dict[str, Pointer]:
    """The pointers of the index, without those that are not in a sparse checkout."""
    entries = [line.partition("\t") for line in await repository.listed("ls-files", "-st", "-z", "--", _FILTERED)]
    blobs = {name: meta.split()[2] for meta, _, name in entries if meta.startswith("H ")}
    if not blobs:
        return {}
    contents = await repository.small_blobs(sorted(set(blobs.values())))
    found = {name: parse_pointer(contents.get(blob, b"")) for name, blob in blobs.items()}
    return {name: pointer for name, pointer in found.items() if pointer is not None}


def _check_size(repository: Repository, pointers: Collection[Pointer]) -> None:
    """A thousand small files may all be the one large object, and are written faster than the watch on the disk looks. Objects lie there twice: as
    they came, and in their places."""
    size = sum(pointer.size for pointer in [*pointers, *{each.oid: each for each in pointers}.values()])
    limits = repository.limits
    if size > limits.size_bytes:
        raise CloneLimitError(
            f"cannot clone {repository.origin.url}: its objects of Git LFS are larger than {limits.size_mib} MiB"
        )


def _look(root: Path, name: str, pointer: Pointer) -> bool | None:
    """Whether the file is the pointer (true), or what it stands for (false); None where it is neither, or not there."""
    try:
        with open_beneath(root, name) as file:
            size = os.fstat(file.fileno()).st_size
            if size == pointer.size and _digest(file) == pointer.oid:
                return False
            file.seek(0)
            return True if parse_pointer(file.read(2048)) == pointer else None
    except (OSError, OutsideError):
        return None


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _lay_out(root: Path, objects: Path, target: Path, pointers: Mapping[str, Pointer]) -> None:
    for name, pointer in pointers.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(objects / pointer.oid, file)
        file.chmod(0o755 if os.access(root / name, os.X_OK) else 0o644)
