"""From a definition to a root file system: which builder makes it, and what is written down about it."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Final

from firebrick.image.definition import Debian, Definition, Dockerfile, Oci
from firebrick.image.errors import BuildError, HostLacksError
from firebrick.image.model import ImageManifest, Package
from firebrick.image.progress import Progress
from firebrick.image.sandbox import program_of, remove_tree
from firebrick.image.shelf import digest_of
from firebrick.process import ProcessError, ProgramNotFoundError, run

ROOT_FILE: Final = "root.squashfs"
_LAST_WORDS: Final = 8

_TOOLS: Final = {
    "debian": {"mmdebstrap": "--version", "sqfstar": "-version"},
    "dockerfile": {"buildah": "--version", "umoci": "--version", "mksquashfs": "-version"},
    "oci": {"umoci": "--version", "mksquashfs": "-version"},
}


async def build_root(definition: Definition, digest: str, staging: Path, progress: Progress) -> ImageManifest:
    """Fill the empty directory `staging` with the root image of `definition`, whose digest is `digest`, and nothing else.

    Raises BuildError with the last words of the tool that failed, HostLacksError."""
    work = staging / "work"
    work.mkdir()
    root = staging / ROOT_FILE
    try:
        packages = await _dispatch(definition, work, root, progress)
        tools = await _tool_versions(definition.kind)
    except ProgramNotFoundError as error:
        raise HostLacksError(f"cannot build the image {definition.name}: {error}", hint=error.hint) from error
    except ProcessError as error:
        raise BuildError(f"cannot build the image {definition.name}: {what_failed(error)}", hint=error.hint) from error
    progress.stage("Recording the digest")
    await remove_tree(work)
    return ImageManifest(
        digest=await asyncio.to_thread(digest_of, root),
        definition=digest,
        kind=definition.kind,
        size=root.stat().st_size,
        created=time.time(),
        description=definition.description,
        packages=packages,
        tools=tools,
    )


def what_failed(error: ProcessError) -> str:
    """The tool and its last words: our argument lists, with the sandbox before them, tell nobody anything."""
    if error.returncode is None:
        return str(error)
    last = [line for line in error.stderr.splitlines() if line.strip() and not line.startswith("I: ")][-_LAST_WORDS:]
    return "\n".join([f"{program_of(error.argv)} failed with status {error.returncode}:", *last])


async def _dispatch(definition: Definition, work: Path, root: Path, progress: Progress) -> tuple[Package, ...]:
    # Most who import this find their image made: the builders are for who does not.
    from firebrick.image.debian import build_debian
    from firebrick.image.dockerfile import build_dockerfile
    from firebrick.image.oci import build_oci

    limit = definition.limit_mib << 20
    match definition.source:
        case Debian() as source:
            return await build_debian(source, work, root, progress)
        case Dockerfile() as source:
            layout = work / "layout"
            await build_dockerfile(definition, source, layout, progress)
            return await build_oci(layout, "latest", work, root, progress, limit=limit)
        case Oci() as source:
            return await build_oci(
                definition.confined(source.path), source.reference, work, root, progress, limit=limit
            )


async def _tool_versions(kind: str) -> dict[str, str]:
    versions: dict[str, str] = {}
    for tool, option in _TOOLS[kind].items():
        # squashfs-tools give their version with a status of 1.
        text = (await run([tool, option], timeout=30, check=False)).text
        versions[tool] = text.strip().split("\n", 1)[0][:100]
    return versions


def enough_space(directory: Path, needed: int) -> None:
    """Raises HostLacksError where fewer than `needed` bytes are free."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise HostLacksError(
            f"cannot build in {directory}: {free >> 20} MiB are free and {needed >> 20} MiB are needed",
            hint="`firebrick image prune` removes images nothing uses.",
        )
