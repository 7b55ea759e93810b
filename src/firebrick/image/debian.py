"""Root file systems from Debian packages: mmdebstrap in the sandbox, its archive straight into squashfs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from firebrick.image.apt import debian_sources, proxy_environment
from firebrick.image.definition import Debian
from firebrick.image.model import Package
from firebrick.image.progress import Progress
from firebrick.image.sandbox import sandboxed
from firebrick.image.squashfs import squash_tar
from firebrick.process import run

_HINT: Final = "Does `apt-get update` work on this host, and are the packages in this release?"
_TIMEOUT_S: Final = 3600.0
# What mmdebstrap says at the start of each of its stages, and what we call it.
_STAGES: Final = {
    "running apt-get update": "Fetching package lists",
    "downloading packages with apt": "Fetching packages",
    "extracting archives": "Unpacking the base system",
    "installing essential packages": "Installing the base system",
    "installing remaining packages": "Installing packages",
    "cleaning package lists": "Cleaning up",
    "creating tarball": "Writing the image",
}
# Constant text, run by mmdebstrap inside its sandbox; `$1` is the new root. The host's own resolv.conf and names stay out of images:
# under the VMM's network the resolver has a fixed address.
_SETTLE: Final = """\
set -e
chroot "$1" dpkg-query --show --showformat '${Package}\\t${Version}\\t${Architecture}\\n' > "$FIREBRICK_STAGING/packages"
rm -f "$1/etc/resolv.conf" "$1/etc/hostname"
echo 'nameserver 10.0.2.3' > "$1/etc/resolv.conf"
echo firebrick > "$1/etc/hostname"
printf '127.0.0.1 localhost firebrick\\n::1 localhost ip6-localhost ip6-loopback\\n' > "$1/etc/hosts"
: > "$1/etc/machine-id"\
"""


async def build_debian(source: Debian, staging: Path, target: Path, progress: Progress) -> tuple[Package, ...]:
    """Make the squashfs `target` from Debian packages. `staging` is a directory for what is needed meanwhile.

    Raises ProcessError, HostLacksError."""
    sources = staging / "sources.list"
    sources.write_text("\n".join(await debian_sources(source.suite, source.components)) + "\n")
    scratch = staging / "tmp"
    scratch.mkdir()
    environment = {"TMPDIR": str(scratch), "FIREBRICK_STAGING": str(staging), **await proxy_environment()}
    argv = sandboxed(_arguments(source, sources))
    reading, writing = os.pipe()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_bootstrap(argv, environment, writing, progress), name="mmdebstrap")
            group.create_task(squash_tar(reading, target), name="sqfstar")
    except ExceptionGroup as errors:
        # Whichever failed first: the other was cancelled. Not `except*`, in which Python 3.11.2 wraps what is raised once more.
        raise errors.exceptions[0] from None
    finally:
        os.close(reading)
    return tuple(_packages(staging / "packages"))


def _arguments(source: Debian, sources: Path) -> list[str | os.PathLike[str]]:
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in source.exclude]
    includes = [f"--dpkgopt=path-include={pattern}" for pattern in source.include]
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        *([f"--include={','.join(source.packages)}"] if source.packages else []),
        *excludes,
        *includes,
        f"--customize-hook={_SETTLE}",
        source.suite,
        "-",
        sources,
    ]


async def _bootstrap(
    argv: list[str | os.PathLike[str]], environment: dict[str, str], out: int, progress: Progress
) -> None:
    """Run mmdebstrap, then close `out`: its reader has to see the end."""
    try:
        await run(argv, env=environment, stdout=out, on_stderr=_reporter(progress), timeout=_TIMEOUT_S, hint=_HINT)
    finally:
        os.close(out)


def _reporter(progress: Progress) -> Callable[[bytes], None]:
    """Turns mmdebstrap's messages, which arrive in pieces, into stages and lines."""
    rest = bytearray()

    def report(chunk: bytes) -> None:
        rest.extend(chunk)
        *lines, last = rest.split(b"\n")
        rest[:] = last
        for raw in lines:
            text = raw.decode(errors="replace").strip()
            message = text.removeprefix("I: ").removesuffix("...")
            if message in _STAGES or message.startswith("installing remaining packages"):
                progress.stage(_STAGES.get(message, "Installing packages"))
            elif text:
                progress.line(text)

    return report


def _packages(file: Path) -> Iterator[Package]:
    for line in file.read_text().splitlines():
        name, version, architecture = line.split("\t")
        yield Package(name=name, version=version, architecture=architecture)
