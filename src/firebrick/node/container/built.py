"""Images that are made of Dockerfiles, as a node keeps them: each by the key of all that it was made of, so nobody who wants something else gets it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from firebrick.eviction import Limit, surplus
from firebrick.image.archive import KIND, WriteArchive
from firebrick.image.errors import InUseError, UnknownImageError
from firebrick.image.store import ImageStore

_PREFIX: Final = "built-"
_SPARED_S: Final = 300.0
"""What was wanted so lately may be what a machine is being made of."""


def name_of(key: str) -> str:
    """What the image of a key, 64 hex digits, is called in the store; no workflow can name it."""
    return f"{_PREFIX}{key[:32]}-{key[32:44]}"


class BuiltImages(Protocol):
    """See `StoredImages`."""

    def find(self, key: str) -> str | None: ...

    def making(self, key: str, waiting: Callable[[], None]) -> AbstractAsyncContextManager[None]: ...

    async def make(self, key: str, write: WriteArchive, description: str) -> str: ...


class StoredImages:
    """Those of a store. `limit_mib` is how much of the disk they may take; those nobody has used for longest go first."""

    def __init__(self, store: ImageStore, *, limit_mib: int) -> None:
        self._store = store
        self._limit = Limit(bytes=limit_mib << 20)

    def find(self, key: str) -> str | None:
        """The name of the image of this key; None where there is none."""
        image = self._store.find_made(name_of(key), key)
        return image.name if image is not None else None

    def making(self, key: str, waiting: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Held while the image of this key is made: who waits for it finds it then, or makes it."""
        return self._store.making(name_of(key), waiting)

    async def make(self, key: str, write: WriteArchive, description: str) -> str:
        """Keep the archive as the image of this key, and give its name. Raises firebrick.image.errors.ImageError, and what `write` raises."""
        image = await self._store.make_archived(name_of(key), key, write, description)
        await self._make_room()
        return image.name

    async def _make_room(self) -> None:
        """Images that templates start from stay until those go, and those used lately stay too: so it may be a little more than the limit."""
        built = [image for image in self._store.list_images() if self._is_built(image.name, image.manifest.kind)]
        built.sort(key=lambda image: self._store.last_use(image.name))
        for image in surplus(built, self._limit, size=lambda image: image.size):
            if time.time() - self._store.last_use(image.name) > _SPARED_S:
                with contextlib.suppress(InUseError, UnknownImageError):
                    await self._store.remove_image(image.name)

    def _is_built(self, name: str, kind: str) -> bool:
        return kind == KIND and name.startswith(_PREFIX)
