"""What a job uses of its machine, and whom it gets one from. The logic of jobs needs no more than this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol, Unpack

from firebrick.guest.client import ExecOptions, Files, Listener, Process, TreeCount, Tunnel
from firebrick.node.container import ContainerImage
from firebrick.node.order import Resources
from firebrick.workflow.container import Login

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

    def connect_port(self, port: int, host: str = "127.0.0.1") -> AbstractAsyncContextManager[Tunnel]: ...

    def listen(self, port: int, address: str = "127.0.0.1") -> AbstractAsyncContextManager[Listener]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loan:
    """A machine for one job. `start` is `fork` or `boot`, `start_ms` how long that took. `scratch` is a directory on the host that goes with
    the machine, also when the node is killed: what is made for the job belongs there."""

    guest: Guest
    machine: str
    start: str
    start_ms: float
    scratch: Path


class Lender(Protocol):
    """Where jobs get machines from."""

    async def images(self) -> Sequence[str]:
        """The names of images a machine can be had of."""

    async def container(self, image: str, login: Login | None, say: Say) -> ContainerImage:
        """The image of a container or service, made first where it is missing. Raises ContainerError, firebrick.image.errors.ImageError."""

    def lend(
        self, image: str, resources: Resources, *, purpose: str, say: Say, node: Path | None = None, companions: int = 0
    ) -> AbstractAsyncContextManager[Loan]:
        """A machine for as long as the context lasts; waits for its turn where the node is full. `say` is told, in words, what takes
        long. With `node` the machine has what is in that directory, which is Node.js, where JavaScript actions look for it. `companions` is how many more machines the borrower
        will have beside this one: their turns are taken with it.

        Raises firebrick.machine.errors.MachineError, firebrick.node.errors.NodeError."""

    def lend_companion(
        self, image: str, resources: Resources, *, purpose: str, say: Say
    ) -> AbstractAsyncContextManager[Loan]:
        """As `lend`, for who has said so; does not wait."""
