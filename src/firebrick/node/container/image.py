"""What `image:` of a container or service names, as a root image of the store with its configuration.

In this order: an image of the store by its name; an OCI layout or archive in the folder of the settings; a registry of the settings, through
skopeo. The text comes from a workflow, so it can name no file outside of the folder, and no registry the owner of the node has not allowed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from firebrick.home import Home
from firebrick.image.definition import Definition, Oci
from firebrick.image.oci import image_names
from firebrick.image.oci_config import ImageConfig, read_config
from firebrick.image.progress import Progress
from firebrick.image.store import ImageStore
from firebrick.node.errors import ContainerError
from firebrick.node.settings import NodeSettings
from firebrick.process import ProcessError, run
from firebrick.task import shielded
from firebrick.workflow.container.container import Login

_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?:docker://)?(?:(?P<registry>localhost(?::\d{{1,5}})?|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d{{1,5}})?|[A-Za-z0-9-]+:\d{{1,5}})/)?"
    rf"(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?"
)
_LONGEST: Final = 512
_DEFAULT_REGISTRY: Final = "docker.io"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# What `Reference.image` makes, and digests.
_NOT_TO_BE_NAMED: Final = re.compile(r".*-[0-9a-f]{12}|[0-9a-f]{8,64}")
_FETCH: Final = ".fetch-"
_MANIFEST_LIMIT: Final = 4 << 20
_PULL_TIMEOUT_S: Final = 1800.0
_INSPECT_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry. `tag` is `latest` where neither it nor a digest is named, and may be empty beside a digest."""

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")

    @property
    def label(self) -> str:
        """What it is called in the folder: the tag, or the digest with a dash."""
        return self.tag or self.digest.replace(":", "-")

    @property
    def folders(self) -> Sequence[str]:
        """Where it may be in the folder: with its registry, and for the default one without, as people write it."""
        short = self.repository.removeprefix("library/")
        plain = [short, self.repository] if self.registry == _DEFAULT_REGISTRY else []
        return [f"{self.registry}/{self.repository}", *plain]

    @property
    def image(self) -> str:
        """The name of its image in the store."""
        last = re.sub(r"[^a-z0-9._-]", "-", f"{self.repository.rpartition('/')[2]}-{self.label}".lower())
        return f"{last[:40]}-{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"


def may_be_named(image: str) -> bool:
    """Whether a workflow may name this image of the store, which has no definition. One that was made for a container may only be had by the
    reference it was made for: it may have been fetched with somebody else's password."""
    return _NOT_TO_BE_NAMED.fullmatch(image) is None


def parse_reference(text: str) -> Reference:
    """Raises ContainerError."""
    match = _REFERENCE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ContainerError(
            f"{text[:100]!r} is no name of an image", hint="As `redis:7`, or `registry.example/team/app:1.2`."
        )
    registry, repository = match["registry"] or _DEFAULT_REGISTRY, match["repository"]
    if registry == _DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    digest = match["digest"] or ""
    return Reference(registry, repository, match["tag"] or ("" if digest else "latest"), digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerImage:
    """`name` is an image of the store, `digest` that of its content."""

    name: str
    config: ImageConfig
    digest: str = ""


class Containers:
    """The images of containers on one node."""

    def __init__(self, home: Home, store: ImageStore, settings: NodeSettings) -> None:
        self._home = home
        self._store = store
        self._settings = settings

    async def ensure(self, wanted: str, login: Login | None, progress: Progress) -> ContainerImage:
        """The image a workflow names, made first if it is missing. Raises ContainerError, ImageError."""
        if _NAME.fullmatch(wanted) and self._is_ours(wanted):
            image = await self._store.ensure_image(wanted, progress=progress)
            return ContainerImage(name=wanted, config=ImageConfig(), digest=image.digest)
        reference = parse_reference(wanted)
        try:
            if (found := self._in_folder(reference)) is not None:
                return await self._make(*found, progress)
            if reference.registry in self._settings.registries:
                return await self._fetch(reference, login, progress)
        except ProcessError as error:
            raise ContainerError(f"cannot get the image {reference}: {_last_words(error)}", hint=error.hint) from error
        raise self._missing(wanted, reference)

    def sweep(self) -> None:
        """Remove what processes that died while they fetched have left."""
        for left in self._home.containers.glob(f"{_FETCH}*"):
            pid = left.name.removeprefix(_FETCH).partition("-")[0]
            if pid.isdigit() and not Path("/proc", pid).exists():
                shutil.rmtree(left, ignore_errors=True)

    def _is_ours(self, name: str) -> bool:
        if name in self._store.list_definitions():
            return True
        return may_be_named(name) and self._store.find_image(name) is not None

    def _missing(self, wanted: str, reference: Reference) -> ContainerError:
        folder = self._settings.containers
        here = (
            f"{folder}/{reference.folders[-1]}/{reference.label}.tar" if folder else "the folder `containers` of [node]"
        )
        return ContainerError(
            f"there is no image `{wanted}` on this node",
            hint=f"Put it as an OCI archive at {here}, or allow the registry {reference.registry} in `registries` of [node] in config.toml.",
        )

    # --- the folder ---

    def _in_folder(self, reference: Reference) -> tuple[Definition, str] | None:
        """Its layout or archive in the folder, as a definition, and its name there."""
        if self._settings.containers is None:
            return None
        folder = Path(self._settings.containers)
        for base in reference.folders:
            for path in (f"{base}/{reference.label}.tar", f"{base}/{reference.label}"):
                if (folder / path).is_file() or (folder / path / "index.json").is_file():
                    return _definition(reference, folder, path, "latest"), "latest"
            if (folder / base / "index.json").is_file() and reference.label in image_names(folder / base):
                return _definition(reference, folder, base, reference.label), reference.label
        return None

    async def _make(self, definition: Definition, name: str, progress: Progress) -> ContainerImage:
        source = definition.source
        assert isinstance(source, Oci)
        config = await read_config(definition.confined(source.path), name)
        bounded = msgspec.structs.replace(definition, limit_mib=self._settings.containers_limit_mib)
        image = await self._store.ensure_defined(bounded, progress=progress)
        return ContainerImage(name=image.name, config=config, digest=image.digest)

    # --- registries ---

    async def _fetch(self, reference: Reference, login: Login | None, progress: Progress) -> ContainerImage:
        """What the registry has under this name today; nothing is fetched where that is here already."""
        self._home.containers.mkdir(parents=True, exist_ok=True)
        async with _scratch(self._home.containers) as work:
            options = _access(reference, login, work)
            progress.stage(f"Asking {reference.registry} for {reference.repository}:{reference.label}")
            digest = await self._digest(reference, options)
            record = self._home.containers / f"{reference.image}-{digest.rpartition(':')[2][:16]}.json"
            if record.is_file() and (image := self._store.find_image(reference.image)) is not None:
                config = msgspec.json.decode(record.read_bytes(), type=ImageConfig)
                return ContainerImage(name=reference.image, config=config, digest=image.digest)
            progress.stage(f"Fetching {reference}")
            made = await self._pull(reference, digest, options, work, progress)
            draft = work / "record"
            draft.write_bytes(msgspec.json.encode(made.config))
            self._forget_records(reference)
            draft.rename(record)
            return made

    async def _digest(self, reference: Reference, options: list[str]) -> str:
        """Of the manifest, which names all the rest."""
        argv = ["skopeo", "inspect", "--raw", *options, f"docker://{reference}"]
        manifest = (await run(argv, timeout=_INSPECT_TIMEOUT_S, limit=_MANIFEST_LIMIT)).stdout
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    async def _pull(
        self, reference: Reference, digest: str, options: list[str], work: Path, progress: Progress
    ) -> ContainerImage:
        exact = f"docker://{reference.registry}/{reference.repository}@{digest}"
        access = [_of_source(option) for option in options]
        # Layers are unpacked on the way, here and in the folder of temporary files: one that becomes too large is refused, not what has no room then.
        # Of the archives it writes this one keeps the health check.
        argv = [
            *("env", "--ignore-signal=XFSZ", "prlimit", f"--fsize={self._settings.containers_limit_mib << 20}"),
            *("skopeo", "--insecure-policy", f"--tmpdir={work}", "copy", "--quiet"),
            *access,
            exact,
            f"docker-archive:{work / 'image.tar'}",
        ]
        await run(argv, timeout=_PULL_TIMEOUT_S)
        return await self._make(_definition(reference, work, "image.tar", "latest"), "latest", progress)

    def _forget_records(self, reference: Reference) -> None:
        """The name in the store has one image, so one record tells the truth."""
        for record in self._home.containers.glob(f"{reference.image}-*.json"):
            record.unlink(missing_ok=True)


@asynccontextmanager
async def _scratch(directory: Path) -> AsyncIterator[Path]:
    """A directory for what is fetched. That may be large, and go slowly."""
    made = TemporaryDirectory(dir=directory, prefix=f"{_FETCH}{os.getpid()}-")
    try:
        yield Path(made.name)
    finally:
        await shielded(asyncio.to_thread(made.cleanup))


def _definition(reference: Reference, folder: Path, path: str, name: str) -> Definition:
    source = Oci(path=path, reference=name)
    return Definition(name=reference.image, file=folder / "containers", description=str(reference), source=source)


def _access(reference: Reference, login: Login | None, work: Path) -> list[str]:
    """How skopeo gets in. The password is in no argument list: those can be read by others. Without one it comes as nobody: what the user of this
    node is logged in to is not the workflow's."""
    options = []
    if login is None:
        options.append("--no-creds")
    else:
        token = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        file = work / "auth.json"
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.encode({"auths": {reference.registry: {"auth": token}}}))
        options += ["--authfile", str(file)]
    host = reference.registry.partition(":")[0]
    if host in ("localhost", "127.0.0.1"):
        options.append("--tls-verify=false")
    return options


def _of_source(option: str) -> str:
    """An option of `inspect` as one of `copy`, which has another end."""
    return option.replace("--", "--src-", 1) if option.startswith(("--tls-verify", "--no-creds")) else option


def _last_words(error: ProcessError) -> str:
    lines = error.stderr.strip().splitlines()
    return lines[-1][:500] if lines else str(error)
