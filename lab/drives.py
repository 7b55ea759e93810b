"""What the lab's host finds on its disks, so that nothing is copied into it: squashfs images, named by their content and made once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from firebrick.machine.spec import Drive
from firebrick.process import run
from lab.ground import Ground

PACKAGES: Final = PurePosixPath("/opt/packages")
GROUND: Final = PurePosixPath("/opt/ground")
_PLAIN: Final = ("-noI", "-noD", "-noF", "-noX", "-no-progress", "-quiet", "-noappend", "-all-root")
_TIMEOUT_S: Final = 600.0


def ground_inside(ground: Ground) -> Ground:
    """Where the lab's host has the files of `ground`."""
    inside = {name: Path(GROUND / file.name) for name, file in _files(ground).items()}
    return Ground(**inside, kernel_args=ground.kernel_args)


async def packages_drive(packages: Path, cache: Path) -> Drive:
    target = cache / f"{packages.name}.squashfs"
    if not target.is_file():
        await _squash([packages], target)
    return Drive(name="packages", path=target)


async def ground_drive(ground: Ground, cache: Path) -> Drive:
    files = _files(ground)
    target = cache / f"ground-{_fingerprint(files)}.squashfs"
    if not target.is_file():
        await _squash(list(files.values()), target)
    return Drive(name="ground", path=target)


def _files(ground: Ground) -> dict[str, Path]:
    names = ("firecracker", "jailer", "kernel", "initrd", "root")
    return {name: getattr(ground, name) for name in names}


def _fingerprint(files: Mapping[str, Path]) -> str:
    """All of them lie where a file is never written again."""
    total = hashlib.sha256()
    for name, file in files.items():
        facts = file.stat()
        total.update(f"{name} {file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


async def _squash(sources: Sequence[Path], target: Path) -> None:
    """Not compressed: the lab's processor is emulated, and unpacking is work. One directory becomes the top, several files lie in it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        image = Path(fresh) / "image"
        await run(["mksquashfs", *sources, image, *_PLAIN], timeout=_TIMEOUT_S)
        image.rename(target)
