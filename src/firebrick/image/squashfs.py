"""Root file systems as squashfs images: read-only, one file, owners and modes kept, made without root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.image.errors import BuildError
from firebrick.image.sandbox import sandboxed
from firebrick.process import run

# Not compressed: where the processor is emulated, unpacking makes programs start two to three times slower, and the host has the file in
# its page cache anyway.
_PLAIN: Final = ("-noI", "-noD", "-noF", "-noX")
_SMALL: Final = ("-comp", "zstd")
_QUIET: Final = ("-no-progress", "-quiet")
_TIMEOUT_S: Final = 1800.0
_TOOLS: Final = "Install the Debian package squashfs-tools."
_MODULE_TIMEOUT_S: Final = 60.0
_MODULE_LIMIT: Final = 4 << 20


async def squash_tar(tar: int, target: Path) -> None:
    """Read a tar archive from the file descriptor `tar` to its end, and write it as squashfs to the new file `target`.

    sqfstar skips what the archive says of its own top and gives the root directory to whoever runs it, so it runs in the sandbox."""
    argv = sandboxed(["sqfstar", *_PLAIN, *_QUIET, "-root-mode", "755", target])
    await run(argv, stdin=tar, timeout=_TIMEOUT_S)


async def squash_sandboxed(directory: Path, target: Path) -> None:
    """Write the tree below `directory`, with the owners it has inside the sandbox, as squashfs to the new file `target`."""
    argv = sandboxed(["mksquashfs", directory, target, *_PLAIN, *_QUIET, "-root-mode", "755", "-noappend"])
    await run(argv, timeout=_TIMEOUT_S)


async def squash_archive(directory: Path, target: Path) -> None:
    """Write a tree that is read rarely, all of it root's, as small squashfs to the new file `target`."""
    await run(["mksquashfs", directory, target, *_SMALL, *_QUIET, "-noappend", "-all-root"], timeout=_TIMEOUT_S)


async def read_modules(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Kernel modules out of the `modules.squashfs` of a kernel, by their names: where they are in its source, as in `fs/fuse/fuse`.

    Raises BuildError for one it does not have as it is loaded, ProcessError, HostLacksError."""
    return {name: await _read_module(archive, name) for name in names}


async def _read_module(archive: Path, name: str) -> bytes:
    argv: list[str | Path] = ["unsquashfs", "-cat", archive, f"*/kernel/{name}.ko"]
    done = await run(argv, timeout=_MODULE_TIMEOUT_S, limit=_MODULE_LIMIT, check=False, hint=_TOOLS)
    if not done.stdout:
        raise BuildError(f"there is no module {name}.ko in {archive}")
    return done.stdout
