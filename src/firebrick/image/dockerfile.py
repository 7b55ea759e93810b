"""From a Dockerfile to an OCI layout, with buildah and no daemon. Its storage lies in the staging directory, so nothing stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from firebrick.image.definition import Definition, Dockerfile
from firebrick.image.progress import Progress
from firebrick.image.sandbox import sandboxed
from firebrick.process import run

_TIMEOUT_S: Final = 7200.0
_TAG: Final = "localhost/firebrick-build:latest"


async def build_dockerfile(definition: Definition, source: Dockerfile, layout: Path, progress: Progress) -> None:
    """Build `source` into the OCI layout directory `layout`, image `latest`.

    The RUN lines of a Dockerfile do run on this host: as root of the sandbox, which without root is nobody outside of it. A Dockerfile is
    what the owner of the host chose to build; none ever comes from a repository or an API request. Raises ProcessError, HostLacksError."""
    # The format: SHELL, HEALTHCHECK and ONBUILD are known to Docker images alone. What is pushed below is OCI all the same.
    storage = layout.with_name("storage")
    progress.stage("Building the Dockerfile")
    where = ("--root", storage / "root", "--runroot", storage / "run", "--storage-driver", "vfs")
    arguments = [word for name, value in source.arguments.items() for word in ("--build-arg", f"{name}={value}")]
    build = sandboxed([
        "buildah", *where, "bud", "--isolation", "chroot", "--format", "docker", "--layers=false", "--pull=false",
        *arguments, "--file", definition.confined(source.path), "--tag", _TAG, definition.confined(source.context),
    ])  # fmt: skip
    environment = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), str(layout.parent))
    await run(build, env=environment, timeout=_TIMEOUT_S, on_stderr=lambda chunk: _lines(chunk, progress))
    push = sandboxed(["buildah", *where, "push", "--quiet", _TAG, f"oci:{layout}:latest"])
    await run(push, env=environment, timeout=_TIMEOUT_S)


def _lines(chunk: bytes, progress: Progress) -> None:
    for line in chunk.decode(errors="replace").splitlines():
        progress.line(line)
