"""The store of a host: kernels and root images, made when they are missing, found by name, kept by digest.

    async with asyncio.timeout(600):
        store = ImageStore(home)
        kernel = await store.ensure_kernel()
        image = await store.ensure_image("base")

Any number of stores, in any number of processes, may work on one home at once: what one of them makes the others wait for and find.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick.home import Home
from firebrick.image.archive import WriteArchive, build_archived
from firebrick.image.build import ROOT_FILE, build_root, enough_space, what_failed
from firebrick.image.definition import Definition, list_definitions, resolve_definition, unknown
from firebrick.image.errors import (
    BuildError,
    DamagedError,
    HostLacksError,
    InUseError,
    UnknownImageError,
    UnknownKernelError,
)
from firebrick.image.initramfs import AGENT, build_initramfs, initramfs_key, read_agent, write_once
from firebrick.image.kernel import build_debian_kernel, debian_definition
from firebrick.image.model import Image, ImageManifest, Kernel, KernelManifest
from firebrick.image.progress import SILENT, Progress
from firebrick.image.sandbox import remove_tree
from firebrick.image.shelf import Shelf, digest_of
from firebrick.image.tuned import build_tuned_kernel, tuned_definition
from firebrick.process import ProcessError, ProgramNotFoundError

KERNELS: Final = ("debian", "tuned")
_SHORTEST_DIGEST: Final = 8
_IMAGE_SPACE: Final = 2 << 30
_KERNEL_SPACE: Final = {"debian": 1 << 30, "tuned": 4 << 30}


class ImageStore:
    """Kernels and images below `home`. `agent` is the program that becomes /init; by default the one this package carries."""

    def __init__(self, home: Home, *, agent: Path = AGENT) -> None:
        self.home = home
        self._agent = agent
        self._images = Shelf(home.images, ImageManifest)
        self._kernels = Shelf(home.kernels, KernelManifest)

    @property
    def definitions(self) -> Path:
        """Where the user's own definitions are looked for."""
        return self.home.images / "definitions"

    # Images

    async def ensure_image(self, name: str | Path, *, progress: Progress = SILENT, refresh: bool = False) -> Image:
        """The image `name` (or of the definition at a path), made first if there is none or its definition has changed since; with
        `refresh` made anew all the same, from the packages Debian has now.

        Raises UnknownImageError, DefinitionError, HostLacksError, BuildError."""
        definition = resolve_definition(name, self.definitions)
        if definition is None:
            # Built from a file elsewhere, or removed since: what there is under this name is what was asked for.
            if image := self.find_image(str(name)):
                return image
            raise unknown(str(name), self.definitions)
        return await self.ensure_defined(definition, progress=progress, refresh=refresh)

    async def ensure_defined(
        self, definition: Definition, *, progress: Progress = SILENT, refresh: bool = False
    ) -> Image:
        """As `ensure_image`, of a definition that need be in no file."""
        digest = await asyncio.to_thread(definition.digest)
        if not refresh and (image := self._made_from(definition.name, digest)):
            return image
        waiting = f"Waiting for another process that builds {definition.name}"
        async with self._images.lock(definition.name, waiting=lambda: progress.stage(waiting)):
            # Whoever had the lock may have made what we want.
            if not refresh and (image := self._made_from(definition.name, digest)):
                return image
            self._forget_damaged(definition.name)
            if not refresh and (image := self._made_under_other_name(definition, digest)):
                return image
            return await self._build_image(definition, digest, progress)

    def find_made(self, name: str, definition: str) -> Image | None:
        """The image of this name, if it was made of this definition, which counts as a use of it."""
        image = self._made_from(name, definition)
        if image is not None:
            self._images.use(name)
        return image

    @asynccontextmanager
    async def making(self, name: str, waiting: Callable[[], None]) -> AsyncIterator[None]:
        """Held by whoever makes this image with `make_archived`: everybody else waits, and is told so once. Of what was not made nothing stays."""
        async with self._images.lock(name, waiting=waiting):
            try:
                yield
            finally:
                if self._images.find(name) is None:
                    self._images.forget_lock(name)

    async def make_archived(self, name: str, definition: str, write: WriteArchive, description: str = "") -> Image:
        """Make an image of the tar archive that `write` writes to a file descriptor. Raises BuildError, HostLacksError, and what `write` raises."""
        async with self._images.staged() as staging:
            enough_space(staging, _IMAGE_SPACE)
            manifest = await build_archived(name, definition, write, staging, description)
            self._images.publish(staging, manifest.digest, manifest)
        self._images.point(name, manifest.digest)
        return self._image(name, manifest.digest)

    def last_use(self, name: str) -> float:
        """When the image of this name was made, or found by `find_made` last, in seconds since 1970."""
        return self._images.last_use(name)

    def find_image(self, name: str) -> Image | None:
        """The image of this name, or with this digest (at least 8 hex digits of it), as it is; None where there is none."""
        digest = self._locate(name)
        return self._image(name, digest) if digest is not None else None

    def list_images(self) -> list[Image]:
        """Every image in the store. One with two names is there twice; one without a name has the first 12 digits of its digest."""
        names = self._images.names()
        found = [self._unchecked(name, digest) for name, digest in names.items() if self._images.find(name)]
        nameless = [d for d in self._images.digests() if d not in names.values()]
        return found + [self._unchecked(digest[:12], digest) for digest in nameless]

    def list_definitions(self) -> list[str]:
        return list_definitions(self.definitions)

    def claim(self, image: Image, user: Path) -> None:
        """Note that what lies at `user` (a template, a machine's directory) starts from this image. The claim ends by itself when `user`
        is removed, by whomever; until then the image cannot be. Idempotent."""
        claims = self._claims(image.digest)
        claims.mkdir(parents=True, exist_ok=True)
        link = claims / hashlib.sha256(str(user.absolute()).encode()).hexdigest()[:16]
        if not link.is_symlink():
            fresh = link.with_name(f".{secrets.token_hex(8)}")
            fresh.symlink_to(user.absolute())
            fresh.rename(link)

    def users(self, digest: str) -> list[Path]:
        """What claims this image and is still there. Claims that have ended are forgotten on the way."""
        alive: list[Path] = []
        for link in sorted(self._claims(digest).glob("[0-9a-f]*")):
            if link.exists():
                alive.append(link.readlink())
            else:
                link.unlink(missing_ok=True)
        return alive

    async def remove_image(self, name: str) -> None:
        """Forget the name, and remove the image if it has no other; given a digest, all names. Raises UnknownImageError, InUseError."""
        digest = self._locate(name)
        if digest is None:
            raise UnknownImageError(f"there is no image `{name}`", hint="`firebrick image ls` lists them.")
        async with self._images.lock(name):
            names = {its for its, meant in self._images.names().items() if meant == digest}
            others = names - {name} if name in names else set()
            if not others and (users := self.users(digest)):
                raise InUseError(
                    f"cannot remove the image {name}: {users[0]} starts from it"
                    + (f", and {len(users) - 1} more" if users[1:] else ""),
                    hint="Stop the machines and remove the templates that use it first.",
                )
            for forgotten in names - others:
                self._images.unpoint(forgotten)
            if not others:
                self._remove_object(digest)
            self._images.forget_lock(name)

    async def prune_images(self) -> list[Image]:
        """Remove every image that has no name and no user: what rebuilt images have left behind."""
        await self.sweep()
        named = set(self._images.names().values())
        idle = [image for image in self.list_images() if image.digest not in named and not self.users(image.digest)]
        for image in idle:
            self._remove_object(image.digest)
        return idle

    async def verify_image(self, image: Image) -> None:
        """Read the whole image and compare it with its digest. Raises DamagedError."""
        actual = await asyncio.to_thread(digest_of, image.path)
        if actual != image.digest:
            raise DamagedError(
                f"the image {image.name} is damaged: {image.path} has the digest {actual} and should have {image.digest}",
                hint=f"`firebrick image rm {image.name}` and build it again.",
            )

    # Kernels

    async def ensure_kernel(
        self, name: str = "debian", *, progress: Progress = SILENT, refresh: bool = False
    ) -> Kernel:
        """The kernel `debian` or `tuned` with its initramfs; the kernel is fetched or built first if there is none, the initramfs made
        if the agent has changed. `refresh` fetches or builds anew what Debian has now.

        Raises UnknownKernelError, HostLacksError, BuildError, ImageError (no agent)."""
        if name not in KERNELS:
            raise UnknownKernelError(f"there is no kernel `{name}`", hint=f"Kernels: {', '.join(KERNELS)}.")
        digest = None if refresh else self._kernel_made(name)
        if digest is None:
            waiting = f"Waiting for another process that makes the kernel {name}"
            async with self._kernels.lock(name, waiting=lambda: progress.stage(waiting)):
                digest = (None if refresh else self._kernel_made(name)) or await self._build_kernel(name, progress)
        return self._kernel(name, digest)

    def find_kernel(self, name: str) -> KernelManifest | None:
        """What is known of the kernel of this name, or None where it has not been made."""
        digest = self._kernels.find(name) if name in KERNELS else None
        return self._kernels.manifest(digest) if digest is not None else None

    def list_kernels(self) -> dict[str, KernelManifest]:
        return {name: manifest for name in KERNELS if (manifest := self.find_kernel(name)) is not None}

    async def sweep(self) -> int:
        """Remove what builds of processes that died have left. Returns how many there were. For the start of a node."""
        return await self._images.sweep() + await self._kernels.sweep()

    # Inside

    def _made_from(self, name: str, digest: str) -> Image | None:
        found = self._images.find(name)
        image = self._unchecked(name, found) if found is not None else None
        return image if image is not None and image.manifest.definition == digest and _is_whole(image) else None

    def _made_under_other_name(self, definition: Definition, digest: str) -> Image | None:
        for candidate, manifest in self._images.manifests():
            if manifest.definition == digest and _is_whole(image := self._unchecked(definition.name, candidate)):
                self._images.point(definition.name, candidate)
                return image
        return None

    def _forget_damaged(self, name: str) -> None:
        """A damaged image is in the way of the same one made again."""
        found = self._images.find(name)
        if found is not None and not _is_whole(self._unchecked(name, found)):
            self._images.remove(found)

    def _locate(self, name: str) -> str | None:
        digest = self._images.find(name) if "/" not in name else None
        if digest is None and len(name) >= _SHORTEST_DIGEST:
            digest = next((d for d in self._images.digests() if d.startswith(name)), None)
        return digest

    def _unchecked(self, name: str, digest: str) -> Image:
        return Image(name=name, path=self._images.object(digest) / ROOT_FILE, manifest=self._images.manifest(digest))

    def _image(self, name: str, digest: str) -> Image:
        image = self._unchecked(name, digest)
        if not _is_whole(image):
            raise DamagedError(
                f"the image {name} is damaged: {image.path} is not the file of {image.size} bytes it was",
                hint=f"`firebrick image rm {name}`, and build it again.",
            )
        return image

    async def _build_image(self, definition: Definition, digest: str, progress: Progress) -> Image:
        async with self._images.staged() as staging:
            enough_space(staging, _IMAGE_SPACE)
            manifest = await build_root(definition, digest, staging, progress)
            self._images.publish(staging, manifest.digest, manifest)
        self._images.point(definition.name, manifest.digest)
        return self._image(definition.name, manifest.digest)

    def _claims(self, digest: str) -> Path:
        return self.home.images / "claims" / digest

    def _remove_object(self, digest: str) -> None:
        self._images.remove(digest)
        for link in list(self._claims(digest).glob("*")):
            link.unlink(missing_ok=True)

    def _kernel_made(self, name: str) -> str | None:
        digest = self._kernels.find(name)
        definition = {"debian": debian_definition, "tuned": tuned_definition}[name]()
        return digest if digest is not None and self._kernels.manifest(digest).definition == definition else None

    async def _build_kernel(self, name: str, progress: Progress) -> str:
        build = {"debian": build_debian_kernel, "tuned": build_tuned_kernel}[name]
        async with self._kernels.staged() as staging:
            enough_space(staging, _KERNEL_SPACE[name])
            try:
                manifest = await build(staging, self.home.cache, progress)
            except ProgramNotFoundError as error:
                raise HostLacksError(f"cannot make the kernel {name}: {error}", hint=error.hint) from error
            except ProcessError as error:
                raise BuildError(f"cannot make the kernel {name}: {what_failed(error)}", hint=error.hint) from error
            await remove_tree(staging / "work")
            # The same bzImage with other modules beside it is another object.
            digest = hashlib.sha256(f"{manifest.definition}\n{manifest.digest}".encode()).hexdigest()
            self._kernels.publish(staging, digest, manifest)
        self._kernels.point(name, digest)
        return digest

    def _kernel(self, name: str, digest: str) -> Kernel:
        directory = self._kernels.object(digest)
        manifest = self._kernels.manifest(digest)
        agent = read_agent(self._agent)
        listed = manifest.module_lines()
        key = initramfs_key(digest, agent, listed)
        initrd = self.home.kernels / "initramfs" / f"{key}.cpio"
        if not initrd.is_file():
            initrd.parent.mkdir(parents=True, exist_ok=True)
            write_once(initrd, build_initramfs(agent, directory / "modules", listed))
        modules = directory / "modules.squashfs"
        return Kernel(
            name=name,
            path=directory / "vmlinuz",
            elf=directory / "vmlinux",
            initrd=initrd,
            digest=key,
            manifest=manifest,
            modules=modules if modules.is_file() else None,
        )


def _is_whole(image: Image) -> bool:
    """What can be seen without reading it; `verify_image` reads it."""
    try:
        return image.path.stat().st_size == image.size
    except OSError:
        return False
