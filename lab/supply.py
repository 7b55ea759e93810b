"""The ground of the lab tests on this host: made, or fetched, where it is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from firebrick.home import Home
from firebrick.image import ImageStore
from firebrick.image.progress import Progress
from lab.binaries import ensure_binaries
from lab.ground import Ground

_IMAGE: Final = "base"


async def ensure_ground(home: Home, cache: Path, progress: Progress) -> Ground:
    """Kernel and image are in `home`, the programs below `cache`. Raises ImageError, ProcessError, BinaryError."""
    store = ImageStore(home)
    kernel, image = await store.ensure_kernel(progress=progress), await store.ensure_image(_IMAGE, progress=progress)
    binaries = await ensure_binaries(cache)
    return Ground(
        firecracker=binaries.firecracker,
        jailer=binaries.jailer,
        kernel=kernel.elf,
        initrd=kernel.initrd,
        root=image.path,
        kernel_args=kernel.args,
    )
