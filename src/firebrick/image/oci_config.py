"""How an OCI image wants to be run: its configuration, read from a layout or an archive. It may come from anybody, so everything is bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firebrick.image.errors import BuildError
from firebrick.image.oci import choose_reference, is_docker_archive
from firebrick.process import run

_BLOB_LIMIT: Final = 4 << 20
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_REFERENCE: Final = "org.opencontainers.image.ref.name"
_PORT: Final = re.compile(r"(\d{1,5})(?:/tcp)?")
_TIMEOUT_S: Final = 120.0


_Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a Dockerfile's HEALTHCHECK says. `test` begins with CMD, CMD-SHELL or NONE. Times are in nanoseconds; 0 is the default of who runs it."""

    test: tuple[str, ...] | None = msgspec.field(name="Test", default=None)
    interval: _Nanoseconds = msgspec.field(name="Interval", default=0)
    timeout: _Nanoseconds = msgspec.field(name="Timeout", default=0)
    start_period: _Nanoseconds = msgspec.field(name="StartPeriod", default=0)
    retries: _Count = msgspec.field(name="Retries", default=0)


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an image's configuration that says how to run it. Names on the wire are the specification's."""

    entrypoint: tuple[str, ...] | None = msgspec.field(name="Entrypoint", default=None)
    command: tuple[str, ...] | None = msgspec.field(name="Cmd", default=None)
    environment: tuple[str, ...] | None = msgspec.field(name="Env", default=None)
    user: str = msgspec.field(name="User", default="")
    directory: str = msgspec.field(name="WorkingDir", default="")
    exposed: dict[str, msgspec.Raw] | None = msgspec.field(name="ExposedPorts", default=None)
    health: Healthcheck | None = msgspec.field(name="Healthcheck", default=None)

    @property
    def env(self) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in self.environment or ())
        return {name: value for name, _, value in pairs if name}

    @property
    def ports(self) -> tuple[int, ...]:
        """The TCP ports it exposes."""
        found = (_PORT.fullmatch(name) for name in self.exposed or ())
        return tuple(sorted({int(match[1]) for match in found if match and 0 < int(match[1]) < 65536}))


class _Blob(msgspec.Struct):
    digest: str
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct):
    manifests: list[_Blob] = []


class _Manifest(msgspec.Struct):
    """A manifest, or an index of several."""

    config: _Blob | None = None
    manifests: list[_Blob] = []


class _ConfigFile(msgspec.Struct):
    config: ImageConfig | None = None


async def read_config(source: Path, reference: str) -> ImageConfig:
    """The configuration of the image `reference` in the layout or archive `source`. Raises BuildError, ProcessError."""
    try:
        raw = _from_layout(source, reference) if source.is_dir() else await _from_archive(source)
        return msgspec.json.decode(raw, type=_ConfigFile).config or ImageConfig()
    except (OSError, msgspec.MsgspecError) as error:
        raise BuildError(f"cannot read how the image in {source} is to be run: {error}") from error


async def _from_archive(archive: Path) -> bytes:
    kind = "docker-archive" if is_docker_archive(archive) else "oci-archive"
    argv = ["skopeo", "--insecure-policy", "inspect", "--config", "--raw", f"{kind}:{archive}"]
    return (await run(argv, timeout=_TIMEOUT_S, limit=_BLOB_LIMIT)).stdout


def _from_layout(layout: Path, reference: str) -> bytes:
    name = choose_reference(layout, reference)
    index = msgspec.json.decode(_read(layout / "index.json"), type=_Index)
    found = next(one for one in index.manifests if (one.annotations or {}).get(_REFERENCE) == name)
    manifest = msgspec.json.decode(_blob(layout, found.digest), type=_Manifest)
    if manifest.config is None and len(manifest.manifests) == 1:
        manifest = msgspec.json.decode(_blob(layout, manifest.manifests[0].digest), type=_Manifest)
    if manifest.config is None:
        raise BuildError(f"the image {name} in {layout} is for several platforms", hint="Keep one of them.")
    return _blob(layout, manifest.config.digest)


def _blob(layout: Path, digest: str) -> bytes:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BuildError(f"{layout} is no OCI layout: {digest[:100]!r} is no digest")
    return _read(layout / "blobs" / "sha256" / match[1])


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        data = opened.read(_BLOB_LIMIT + 1)
    if len(data) > _BLOB_LIMIT:
        raise BuildError(f"{file} is larger than {_BLOB_LIMIT >> 20} MiB")
    return data
