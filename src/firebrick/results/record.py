"""What is known of an artifact, and who wants to know. Without the database: a node that has no such jobs does not load it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

ZIP: Final = "application/zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """`mime` is `application/zip` for the archive of files clients make, else the type of the one file it is."""

    number: int
    tenant: str
    run: str
    job: str
    name: str
    mime: str
    sha256: str
    size: int
    created_us: int
    expires_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An artifact that is kept elsewhere, and becomes one of ours when a client first asks. `write` makes its zip, in a thread; `version` is another
    one when it has been replaced."""

    job: str
    name: str
    version: int
    write: Callable[[BinaryIO], None]


class Watcher(Protocol):
    """Whoever keeps the artifacts of a run, too."""

    async def keep(self, artifact: Artifact, content: Path) -> None:
        """A client has stored this one. May raise ResultsError: then the client is refused, and it is not stored."""

    async def drop(self, artifact: Artifact) -> None:
        """A client deletes this one."""

    def offers(self) -> Sequence[Offer]:
        """Those the run has besides what clients have stored."""


class Watchers:
    """Who watches which run."""

    def __init__(self) -> None:
        self._watchers: dict[tuple[str, str], Watcher] = {}

    @contextmanager
    def watched(self, tenant: str, run: str, watcher: Watcher) -> Iterator[None]:
        """Tell `watcher` of this run's artifacts while the context lasts."""
        self._watchers[tenant, run] = watcher
        try:
            yield
        finally:
            del self._watchers[tenant, run]

    def find(self, tenant: str, run: str) -> Watcher | None:
        return self._watchers.get((tenant, run))
