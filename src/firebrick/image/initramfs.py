"""The initramfs a machine starts from: the agent as /init and the modules the kernel needs to reach its devices.

    /init       the agent
    /modules    modules in load order, a line each: its path, then the numbers of virtio devices without one of which it is not loaded
    /lib/*.ko   the modules, not compressed
    /dev /proc /sys /root /scratch      empty, to be mounted on

It is named by all that goes into it, so it is made once per kernel and agent and found from then on.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.image.cpio import CpioWriter
from firebrick.image.errors import ImageError

# Raise it when the layout above changes.
_LAYOUT: Final = 2
_MOUNT_POINTS: Final = ("dev", "proc", "sys", "root", "scratch")

AGENT: Final = Path(__file__).parent.parent / "guest" / "bin" / "firebrick-agent"


def read_agent(path: Path) -> bytes:
    """The agent's program. Raises ImageError where it has not been built."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot make an initramfs: the agent {path} cannot be read ({error.strerror})",
            hint="From a source tree: `make agent` builds it. A wheel carries it.",
        ) from error


def initramfs_key(kernel: str, agent: bytes, modules: Sequence[str]) -> str:
    """What names the initramfs of a kernel (its digest), an agent and a list of modules, as `KernelManifest.module_lines` gives it."""
    total = hashlib.sha256(f"firebrick initramfs {_LAYOUT}\n{kernel}\n".encode())
    total.update(hashlib.sha256(agent).digest())
    total.update("\n".join(modules).encode())
    return total.hexdigest()


def build_initramfs(agent: bytes, directory: Path, modules: Sequence[str]) -> bytes:
    """The archive, uncompressed: the kernel copies it faster than it would unpack it. `modules` is as for `initramfs_key`, their files are
    in `directory`."""
    archive = CpioWriter.empty()
    for name in (*_MOUNT_POINTS, "lib"):
        archive.directory(name)
    # Until the agent has mounted /dev its messages go here.
    archive.device("dev/console", 5, 1)
    archive.file("init", agent, mode=0o755)
    archive.file("modules", "".join(f"/lib/{line}\n" for line in modules).encode())
    for name in (line.split()[0] for line in modules):
        archive.file(f"lib/{name}", (directory / name).read_bytes())
    return archive.finish()


def write_once(path: Path, content: bytes) -> None:
    """Put `content` at `path`, which then is complete or not there, whatever happens to this process."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
