"""Root file systems from OCI image layouts: unpacked by umoci in the sandbox (owners, whiteouts), then squashed there."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Final

import msgspec

from firebrick.image.errors import BuildError
from firebrick.image.model import Package
from firebrick.image.progress import Progress
from firebrick.image.sandbox import remove_tree, sandboxed
from firebrick.image.squashfs import squash_sandboxed
from firebrick.image.unpack import unpack
from firebrick.process import run

_TIMEOUT_S: Final = 3600.0
_INDEX_LIMIT: Final = 4 << 20
_STATUS_LIMIT: Final = 64 << 20


class _Descriptor(msgspec.Struct):
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct):
    manifests: list[_Descriptor] = []


async def build_oci(
    source: Path, reference: str, work: Path, target: Path, progress: Progress, *, limit: int
) -> tuple[Package, ...]:
    """Make the squashfs `target` from the image `reference` in the layout or archive `source`. The image may come from anybody: it is
    unpacked, never run, and may take `limit` bytes then. Raises ProcessError, BuildError, HostLacksError."""
    layout = source
    if not source.is_dir():
        progress.stage("Reading the archive")
        layout = await _from_archive(source, work / "from-archive")
    reference = choose_reference(layout, reference)
    bundle = work / "bundle"
    progress.stage("Unpacking layers")
    await unpack(layout, reference, bundle, limit=limit)
    rootfs = bundle / "rootfs"
    packages = await _installed(rootfs)
    progress.stage("Writing the image")
    await squash_sandboxed(rootfs, target)
    await remove_tree(bundle)
    return packages


def choose_reference(layout: Path, wanted: str) -> str:
    """The reference to unpack: `wanted`, or, where that is the default and the layout has exactly one, that one."""
    names = image_names(layout)
    if wanted in names:
        return wanted
    if wanted == "latest" and len(names) == 1:
        return names[0]
    raise BuildError(
        f"the OCI layout {layout} has no image `{wanted}`",
        hint=f"It has {', '.join(names) or 'no named images'}: set `reference` in the [oci] table.",
    )


def image_names(layout: Path) -> list[str]:
    """The images of a layout that have a name. Raises BuildError where it is none."""
    file = layout / "index.json"
    try:
        if file.stat().st_size > _INDEX_LIMIT:
            raise BuildError(f"{file} is larger than {_INDEX_LIMIT >> 20} MiB")
        index = msgspec.json.decode(file.read_bytes(), type=_Index)
    except (OSError, msgspec.MsgspecError) as error:
        raise BuildError(f"{layout} is no OCI layout: {error}") from error
    return [name for one in index.manifests if (name := one.annotations.get("org.opencontainers.image.ref.name"))]


async def _from_archive(archive: Path, layout: Path) -> Path:
    """An archive of an OCI layout, or one that `docker save` wrote, as a layout directory."""
    kind = "docker-archive" if is_docker_archive(archive) else "oci-archive"
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", f"{kind}:{archive}", f"oci:{layout}:latest"]
    await run(argv, timeout=_TIMEOUT_S)
    return layout


def is_docker_archive(archive: Path) -> bool:
    """Whether `docker save` wrote it. Raises BuildError where it is no archive."""
    try:
        with tarfile.open(archive) as tar:
            return any(member.name == "manifest.json" for member in tar)
    except (OSError, tarfile.TarError) as error:
        raise BuildError(f"cannot read the archive {archive}: {error}") from error


async def _installed(rootfs: Path) -> tuple[Package, ...]:
    """The Debian packages in the tree, where it is a Debian: read by our dpkg-query, not by the image's."""
    admin = rootfs / "var/lib/dpkg"
    fields = "${Package}\\t${Version}\\t${Architecture}\\n"
    argv = ["dpkg-query", f"--admindir={admin}", "--show", f"--showformat={fields}"]
    done = await run(sandboxed(argv), timeout=60, limit=_STATUS_LIMIT, check=False)
    rows = [line.split("\t") for line in done.text.splitlines()] if done.returncode == 0 else []
    return tuple(Package(name=row[0], version=row[1], architecture=row[2]) for row in rows if len(row) == 3)
