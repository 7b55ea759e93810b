"""The tuned kernel: Debian's kernel source, our own fragment (definitions/tuned.config), nothing else. It reaches user space in half the time.

Building it takes some minutes of all processors, once per version of the source.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import deque
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from firebrick.image.apt import Apt, debian_sources
from firebrick.image.bzimage import unpack_elf
from firebrick.image.errors import BuildError
from firebrick.image.model import KernelManifest
from firebrick.image.progress import Progress
from firebrick.image.shelf import digest_of
from firebrick.process import PIPE, ProcessError, run, spawn

_SUITE: Final = "bookworm"
_PACKAGE: Final = "linux-source-6.1"
_FRAGMENT: Final = Path(__file__).parent / "definitions" / "tuned.config"
_RECIPE: Final = 1
_HINT: Final = "Install the Debian packages build-essential, bc, bison, flex, libelf-dev, libssl-dev, lz4 and xz-utils."
# How many files a build has compiled and linked when it is done, as its output counts them: the scale of the progress bar.
_ABOUT_FILES: Final = 1750
_STEP: Final = (b"  CC ", b"  AS ", b"  AR ")
_BUILD_TIMEOUT_S: Final = 4 * 3600.0
_STEP_TIMEOUT_S: Final = 900.0
# Without these a kernel would differ with the user, the host and the hour it was built.
_SAME_EVERYWHERE: Final = {
    "KBUILD_BUILD_USER": "firebrick",
    "KBUILD_BUILD_HOST": "firebrick",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
}


def tuned_definition() -> str:
    """What decides what `build_tuned_kernel` makes, apart from the version Debian has."""
    fragment = hashlib.sha256(_FRAGMENT.read_bytes()).hexdigest()
    return f"tuned {_RECIPE} {_SUITE} {_PACKAGE} {fragment}"


async def build_tuned_kernel(staging: Path, cache: Path, progress: Progress) -> KernelManifest:
    """Fill the empty directory `staging` with a kernel built from the source Debian has now. `cache` keeps apt's lists.

    Raises ProcessError, and BuildError where the source does not know an option of the fragment."""
    apt = await Apt.open(cache / "apt" / _SUITE, await debian_sources(_SUITE, ("main",)), progress)
    version = (await apt.show(_PACKAGE))["Version"]
    work = staging / "work"
    work.mkdir()
    progress.stage(f"Fetching {_PACKAGE}")
    archive = await apt.download(f"{_PACKAGE}={version}", work)
    source = await _unpack(archive, work, progress)
    await _configure(source, progress)
    await _compile(source, progress)
    (source / "arch/x86/boot/bzImage").rename(staging / "vmlinuz")
    (source / ".config").rename(staging / "config")
    (staging / "vmlinux").write_bytes(await unpack_elf(staging / "vmlinuz"))
    release = (source / "include/config/kernel.release").read_text().strip()
    return KernelManifest(
        digest=digest_of(staging / "vmlinuz"),
        elf_digest=digest_of(staging / "vmlinux"),
        version=release,
        package=f"{_PACKAGE} {version}",
        definition=tuned_definition(),
        created=time.time(),
        args=("acpi=off",),
    )


async def _unpack(archive: Path, work: Path, progress: Progress) -> Path:
    progress.stage("Unpacking the source")
    await run(["dpkg-deb", "--extract", archive, work / "package"], timeout=_STEP_TIMEOUT_S)
    tarball = work / "package/usr/src" / f"{_PACKAGE}.tar.xz"
    await run(["tar", "--extract", "--file", tarball, "--directory", work], timeout=_STEP_TIMEOUT_S, hint=_HINT)
    return work / _PACKAGE


async def _configure(source: Path, progress: Progress) -> None:
    progress.stage("Configuring")
    await _make(source, "tinyconfig")
    config = source / ".config"
    # The last word on an option counts.
    config.write_text(config.read_text() + _FRAGMENT.read_text())
    await _make(source, "olddefconfig")
    if lost := lost_options(_FRAGMENT.read_text(), config.read_text()):
        raise BuildError(
            f"the kernel source {_PACKAGE} does not take these options of {_FRAGMENT.name}: {', '.join(lost)}",
            hint="Each needs another option that is not set, or has another name in this version.",
        )


def lost_options(fragment: str, config: str) -> list[str]:
    """The options a fragment asks for that a finished configuration does not have."""
    wanted = [line for line in fragment.splitlines() if line.startswith("CONFIG_")]
    got = set(config.splitlines())
    return [
        line
        for line in wanted
        if not (line in got or (line.endswith("=n") and f"{line.removesuffix('n')}" not in config))
    ]


async def _make(source: Path, target: str) -> None:
    await run(["make", "-C", source, target], env=_SAME_EVERYWHERE, timeout=_STEP_TIMEOUT_S, hint=_HINT)


async def _compile(source: Path, progress: Progress) -> None:
    """`make bzImage` at a low priority: machines that run meanwhile come first."""
    progress.stage("Compiling", total=_ABOUT_FILES)
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    argv: list[str | os.PathLike[str]] = ["nice", "-n", "19", "make", "-C", source, jobs, "bzImage"]
    last: deque[str] = deque(maxlen=20)
    async with spawn(argv, env=_SAME_EVERYWHERE, stdout=PIPE, stderr=STDOUT, hint=_HINT) as make:
        assert make.stdout is not None
        done = 0
        async with asyncio.timeout(_BUILD_TIMEOUT_S):
            while line := await make.stdout.readline():
                last.append(line.decode(errors="replace").rstrip())
                done += line.startswith(_STEP)
                progress.advance(min(done, _ABOUT_FILES))
            status = await make.wait()
    if status != 0:
        raise ProcessError(
            "make failed", stderr="\n".join(last), hint=_HINT, argv=("make", "bzImage"), returncode=status
        )
