"""Which files of a tree a sparse checkout has, asked of git itself: an index of empty files, in a repository of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firebrick.node.checkout.repository import Repository
from firebrick.node.checkout.wish import Sparse

_EMPTY: Final = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


async def sparse_paths(draft: Repository, paths: Sequence[bytes], sparse: Sparse) -> list[bytes]:
    """Those of `paths` that `sparse` takes. `draft` is a repository that is not there yet, and for this alone. Raises a ForgeError."""
    await draft.create()
    await draft.git.run("hash-object", "-w", "--stdin", data=b"")
    listed = b"".join(b"100644 " + _EMPTY.encode() + b"\t" + path + b"\0" for path in paths)
    await draft.git.run("update-index", "-z", "--index-info", data=listed)
    tree = (await draft.git.run("write-tree")).strip()
    await draft.set_sparse(sparse)
    (draft.git_directory / "index").unlink()
    await draft.git.run("read-tree", "--reset", "-u", tree)
    told = await draft.git.read("ls-files", "-t", "-z")
    taken = {line[2:] for line in told.split(b"\0") if line.startswith(b"H ")}
    return [path for path in paths if path in taken]
