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
HOME: Final = PurePosixPath("/opt/home")
_PLAIN: Final = ("-noI", "-noD", "-noF", "-noX", "-no-progress", "-quiet", "-noappend", "-all-root")
_TIMEOUT_S: Final = 600.0


def ground_inside(ground: Ground) -> Ground:
    """Where the lab's host has the files of `ground`."""
    programs = {name: Path(GROUND / file.name) for name, file in _programs(ground).items()}
    files = {name: Path(HOME / file.relative_to(ground.home)) for name, file in _stored(ground).items()}
    return Ground(**programs, **files, home=Path(HOME), kernel_args=ground.kernel_args)


async def packages_drive(packages: Path, cache: Path) -> Drive:
    target = cache / f"{packages.name}.squashfs"
    if not target.is_file():
        await _squash([packages], target)
    return Drive(name="packages", path=target)


async def ground_drive(ground: Ground, cache: Path) -> Drive:
    files = _programs(ground)
    target = cache / f"ground-{_fingerprint(files)}.squashfs"
    if not target.is_file():
        await _squash(list(files.values()), target)
    return Drive(name="ground", path=target)


async def home_drive(ground: Ground, cache: Path) -> Drive:
    """The kernel and the image of `ground` as a home has them, with nothing else of it."""
    target = cache / f"home-{_fingerprint(_stored(ground))}.squashfs"
    if not target.is_file():
        await _squash([ground.home / "kernels", ground.home / "images"], target, leave_out=_not_of(ground))
    return Drive(name="home", path=target)


def _not_of(ground: Ground) -> list[str]:
    """What of the home stays outside, as mksquashfs wants it: shell patterns, with directories from the top."""
    kernel, image = ground.kernel.parent.name, ground.root.parent.name
    return [
        *(f"kernels/objects/!({kernel})", "kernels/names/!(debian)", f"kernels/initramfs/!({ground.initrd.name})"),
        *(f"images/objects/!({image})", "images/names/!(base)", "images/definitions"),
        *(f"{kind}/{name}" for kind in ("kernels", "images") for name in ("locks", "staging", "claims")),
        f"kernels/objects/{kernel}/modules.squashfs",  # the lab's host has it as a disk already
    ]


def _programs(ground: Ground) -> dict[str, Path]:
    return {"firecracker": ground.firecracker, "jailer": ground.jailer}


def _stored(ground: Ground) -> dict[str, Path]:
    return {"kernel": ground.kernel, "initrd": ground.initrd, "root": ground.root}


def _fingerprint(files: Mapping[str, Path]) -> str:
    """All of them lie where a file is never written again."""
    total = hashlib.sha256()
    for name, file in files.items():
        facts = file.stat()
        total.update(f"{name} {file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


async def _squash(sources: Sequence[Path], target: Path, leave_out: Sequence[str] = ()) -> None:
    """Not compressed: the lab's processor is emulated, and unpacking is work. One directory becomes the top, several files lie in it."""
    exclude = ("-wildcards", "-e", *leave_out) if leave_out else ()
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        image = Path(fresh) / "image"
        await run(["mksquashfs", *sources, image, *_PLAIN, *exclude], timeout=_TIMEOUT_S)
        image.rename(target)
