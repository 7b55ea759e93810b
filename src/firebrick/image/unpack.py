"""The layers of an image that may come from anybody, unpacked within a bound.

What a layer says of itself proves nothing: a file of an archive may be sparse, a few bytes there and as large as a disk here. So no file may grow
beyond the bound, and what all together take is measured while they are written.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Final, NoReturn

from firebrick.image.errors import BuildError
from firebrick.image.sandbox import sandboxed
from firebrick.process import ProcessError, run
from firebrick.task import race

_TIMEOUT_S: Final = 3600.0
_PAUSE_S: Final = 0.25
_ENTRIES: Final = 4_000_000
_RESERVE: Final = 512 << 20
"""What stays free of the disk."""
_GROWN: Final = "file too large"


async def unpack(layout: Path, reference: str, bundle: Path, *, limit: int) -> None:
    """Make `bundle/rootfs` of an image of the layout. Nothing in it is run. It may take `limit` bytes of the disk.

    Raises ProcessError, HostLacksError; BuildError where it takes more. What was made by then is left to the caller."""
    await race(_unpack(layout, reference, bundle, limit), _watch(bundle, limit), name="image-unpack")
    await _check(bundle, limit)


async def _unpack(layout: Path, reference: str, bundle: Path, limit: int) -> None:
    # A signal would end it without a word.
    bounded = ("env", "--ignore-signal=XFSZ", "prlimit", f"--fsize={limit}")
    argv = sandboxed(["umoci", "--log=error", "unpack", "--image", f"{layout}:{reference}", bundle])
    try:
        await run([*bounded, *argv], timeout=_TIMEOUT_S)
    except ProcessError as error:
        if _GROWN in error.stderr:
            raise _too_large(limit) from error
        raise


async def _watch(bundle: Path, limit: int) -> NoReturn:
    """Ends with BuildError, or when it is ended. A large tree is measured less often, so that it costs no more than half of the time."""
    while True:
        began = time.monotonic()
        await _check(bundle, limit)
        await asyncio.sleep(max(_PAUSE_S, time.monotonic() - began))


async def _check(bundle: Path, limit: int) -> None:
    if await _used(bundle, "--block-size=1") > limit:
        raise _too_large(limit)
    if await _used(bundle, "--inodes") > _ENTRIES:
        raise BuildError(f"the image has more than {_ENTRIES} files and directories, unpacked")
    if shutil.disk_usage(bundle.parent).free < _RESERVE:
        raise BuildError(
            f"cannot unpack the image: it leaves less than {_RESERVE >> 20} MiB of the disk free",
            hint="`firebrick image prune` removes images nothing uses.",
        )


async def _used(bundle: Path, unit: str) -> int:
    """What is below `bundle`, as far as it stays there while one looks."""
    done = await run(sandboxed(["du", "--summarize", unit, bundle]), timeout=_TIMEOUT_S, check=False)
    number = done.text.partition("\t")[0]
    return int(number) if number.isdecimal() else 0


def _too_large(limit: int) -> BuildError:
    return BuildError(
        f"the image takes more than {limit >> 20} MiB, unpacked",
        hint="`containers_limit_mib` in the [node] table of config.toml bounds images of containers.",
    )
