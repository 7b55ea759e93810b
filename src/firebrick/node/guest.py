"""What a job uses of its machine, and whom it gets one from. The logic of jobs needs no more than this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol, Unpack

from firebrick.guest.client import ExecOptions, Files, Listener, Process, TreeCount, TreeEntry, TreeLimits, Tunnel
from firebrick.machine import Snapshot
from firebrick.node.container.built import BuiltImages
from firebrick.node.container.image import ContainerImage
from firebrick.node.kept.shelf import Entry, Kept
from firebrick.node.order import Resources
from firebrick.node.tool.name import StoredTool
from firebrick.workflow.container.container import Login

Say = Callable[[str], None]


class Guest(Protocol):
    """See `firebrick.guest.client.Agent` for the contracts of these."""

    @property
    def files(self) -> Files: ...

    def exec(
        self, argv: Sequence[str | bytes], **options: Unpack[ExecOptions]
    ) -> AbstractAsyncContextManager[Process]: ...

    async def upload(
        self,
        source: Path,
        target: str | bytes,
        *,
        only: Iterable[PurePath] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        exclude: Iterable[str | bytes] = (),
    ) -> TreeCount: ...

    async def download(
        self,
        source: str | bytes,
        target: Path,
        *,
        exclude: Iterable[str | bytes] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount: ...

    async def upload_entries(self, entries: Iterable[TreeEntry], target: str | bytes) -> None: ...

    async def archive(
        self,
        source: str | bytes,
        target: int,
        *,
        exclude: Iterable[str | bytes] = (),
        limits: TreeLimits = TreeLimits(),  # noqa: B008 - frozen
    ) -> TreeCount: ...

    def connect_port(self, port: int, host: str = "127.0.0.1") -> AbstractAsyncContextManager[Tunnel]: ...

    def listen(self, port: int, address: str = "127.0.0.1") -> AbstractAsyncContextManager[Listener]: ...


Keep = Callable[[Kept], Awaitable[Entry | None]]
"""Makes a snapshot and keeps it under this record, its costs filled in. None where that is more than may be kept. Raises MachineError, OSError,
NodeError; the machine goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """A machine for one job. `start` is `fork` or `boot`, `start_ms` how long that took. `scratch` is a directory on the host that goes with
    the machine, also when the node is killed: what is made for the job belongs there. `save` makes a snapshot of the machine, which goes on, as a new
    directory; `keep` puts one on the shelf of kept machines. Where a machine cannot be saved they are None."""

    guest: Guest
    machine: str
    start: str
    start_ms: float
    scratch: Path
    image: str = ""
    save: Callable[[Path], Awaitable[Snapshot]] | None = None
    keep: Keep | None = None


class Lender(Protocol):
    """Where jobs get machines from."""

    async def images(self) -> Sequence[str]:
        """The names of images a machine can be had of."""

    @property
    def built(self) -> BuiltImages:
        """The images that are made of Dockerfiles."""

    async def container(self, image: str, login: Login | None, say: Say) -> ContainerImage:
        """The image of a container or service, made first where it is missing. Raises ContainerError, firebrick.image.errors.ImageError."""

    def lend(
        self,
        image: str,
        resources: Resources,
        *,
        purpose: str,
        say: Say,
        node: Path | None = None,
        tools: Sequence[StoredTool] = (),
        companions: int = 0,
        tenant: str = "",
    ) -> AbstractAsyncContextManager[Loan]:
        """A machine for as long as the context lasts; waits for its turn where the node is full. `say` is told, in words, what takes long. With
        `node` the machine has what is in that directory, which is Node.js, where JavaScript actions look for it, with `tools` these in its tool
        cache. `companions` is how many more machines the borrower will have beside this one: their turns are taken with it. `tenant` is whose job it is for.

        Raises firebrick.machine.errors.MachineError, firebrick.node.errors.NodeError."""

    def lend_companion(
        self, image: str, resources: Resources, *, purpose: str, say: Say, tenant: str = ""
    ) -> AbstractAsyncContextManager[Loan]:
        """As `lend`, for who has said so; does not wait."""

    def lend_booted(
        self, image: str, resources: Resources, *, purpose: str, say: Say
    ) -> AbstractAsyncContextManager[Loan]:
        """As `lend_companion`, of an image that few machines will be of: it is booted, and no template is made that would take another one's place."""

    def revive(
        self, taken: Snapshot, image: str, *, purpose: str, say: Say, companions: int = 0
    ) -> AbstractAsyncContextManager[Loan]:
        """A machine that begins where `taken`, a snapshot of one of `image`, was made; else as `lend`."""

    def shelter(self) -> AbstractContextManager[Path]:
        """A directory for snapshots that are wanted for a while: gone at the end, or when the next node starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrower:
    """A job, as one who has machines beside its own: `resources` are those of its own, `purpose` says what that is for, `say` takes words for its
    log, `tenant` is whose it is."""

    lender: Lender
    resources: Resources
    purpose: str
    say: Say
    tenant: str = ""

    async def image(self, name: str, login: Login | None = None) -> ContainerImage:
        """See `Lender.container`."""
        return await self.lender.container(name, login, self.say)

    def companion(
        self, image: ContainerImage, what: str, resources: Resources | None = None
    ) -> AbstractAsyncContextManager[Loan]:
        """A machine with this image, for `what`, as large as the job's own unless `resources` say otherwise. See `Lender.lend_companion`."""
        purpose = f"{what} of {self.purpose}"
        return self.lender.lend_companion(
            image.name, resources or self.resources, purpose=purpose, say=self.say, tenant=self.tenant
        )

    def booted(self, image: ContainerImage, what: str) -> AbstractAsyncContextManager[Loan]:
        """As `companion`, but see `Lender.lend_booted`."""
        purpose = f"{what} of {self.purpose}"
        return self.lender.lend_booted(image.name, self.resources, purpose=purpose, say=self.say)
