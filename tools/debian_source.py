"""Unpack the source of a Debian package, fetched by apt from this host's own Debian mirror and checked by apt against Debian's signatures.

    python tools/debian_source.py ed build/sources/ed

Needs no root and no `deb-src` line in the host's configuration: it is the apt that kernels and images are made with, which keeps its lists in
build/apt. A target that exists is left as it is.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from firebrick.image.apt import Apt, debian_sources
from firebrick.image.errors import ImageError
from firebrick.image.progress import SILENT
from firebrick.process import ProcessError, run

STATE = Path(__file__).resolve().parent.parent / "build" / "apt"


async def unpack(package: str, target: Path) -> None:
    """Fetch and unpack the source of `package`, Debian's patches applied, as directory `target`."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    apt = await Apt.open(STATE, await debian_sources(release, ("main",), kind="deb-src"), SILENT)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        directory = Path(work)
        description = await apt.download_source(package, directory)
        await run(["dpkg-source", "-x", description, "tree"], cwd=directory)
        # Packaging is no part of the project; and what patches left behind is no part of its repository.
        for extra in ("debian", ".pc"):
            shutil.rmtree(directory / "tree" / extra, ignore_errors=True)
        (directory / "tree").rename(target)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: debian_source.py PACKAGE TARGET")
    package, target = sys.argv[1], Path(sys.argv[2]).absolute()
    if target.exists():
        return
    try:
        asyncio.run(unpack(package, target))
    except (ImageError, ProcessError) as error:
        sys.exit(f"{error}\n{error.hint}".strip())


if __name__ == "__main__":
    main()
