"""Files that are kept beside the repository: which of a tree are pointers to such, and what stands in their places.

git-lfs itself is not run, and its filter is not configured in the workspace: the image may not have it. Instead the index is told to take these files as
they are, so that git sees no change in them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from firebrick.confined import OutsideError, open_beneath
from firebrick.forge.address import Address
from firebrick.forge.lfs import LONGEST_POINTER, Pointer, fetch_objects, parse_pointer
from firebrick.node.checkout.repository import Repository


async def put_objects(repository: Repository, root: Path, target: Path, addresses: Sequence[Address]) -> int:
    """Put into `target`, which is made, what the pointers among the files of `root` stand for, under their names; how many they are. `repository` has
    their index. Raises CloneError for an object that cannot be had."""
    listed = await repository.listed("ls-files", "-t", "-z", "--", ":(attr:filter=lfs)")
    names = [line[2:] for line in listed if line.startswith("H ")]  # others are not in a sparse checkout
    pointers = await asyncio.to_thread(_pointers, root, names)
    if not pointers:
        return 0
    objects = target.with_name(f"{target.name}.objects")
    objects.mkdir()
    await fetch_objects(addresses, pointers.values(), objects)
    await asyncio.to_thread(_lay_out, root, objects, target, pointers)
    data = b"".join(os.fsencode(name) + b"\0" for name in pointers)
    await repository.git.run("update-index", "--assume-unchanged", "-z", "--stdin", data=data)
    return len(pointers)


def _pointers(root: Path, names: Sequence[str]) -> dict[str, Pointer]:
    """Of the files that are there, those that are pointers."""
    found = {}
    for name in names:
        try:
            with open_beneath(root, name) as file:
                pointer = parse_pointer(file.read(LONGEST_POINTER + 1))
        except (OSError, OutsideError):
            continue
        if pointer is not None:
            found[name] = pointer
    return found


def _lay_out(root: Path, objects: Path, target: Path, pointers: Mapping[str, Pointer]) -> None:
    for name, pointer in pointers.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(objects / pointer.oid, file)
        file.chmod(0o755 if os.access(root / name, os.X_OK) else 0o644)
