"""Runs on guests in memory: real plans, real steps, the real agent client; only the machine is a double."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import pytest

from firebrick.guest.client import Agent, Identity
from firebrick.guest.double.agent import GuestDouble
from firebrick.guest.double.disk import MemoryDisk, Node
from firebrick.guest.double.task import Port, Program
from firebrick.image.archive import WriteArchive
from firebrick.image.oci_config import ImageConfig
from firebrick.node.action.source import ActionTree
from firebrick.node.container.image import ContainerImage
from firebrick.node.context import TOOL_CACHE
from firebrick.node.contract import RunResult
from firebrick.node.errors import ActionError, ContainerError
from firebrick.node.event import Annotation, ArtifactStored, Event, JobFinished, LogLine, StepFinished
from firebrick.node.guest import Loan
from firebrick.node.journal import Journal
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.node.pool.turns import Turns
from firebrick.node.results.offer import NodeResults
from firebrick.node.run.run import Run, start_run
from firebrick.node.settings import NodeSettings
from firebrick.node.tool.name import StoredTool
from firebrick.node.tool.shelf import ToolShelf
from firebrick.workflow.container.container import Login
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.uses import RemoteAction
from tests.unit.node.shell import shell

PATIENCE = 20.0
WORKSPACE = "/home/runner/work/hello/hello"
NODE = "/opt/externals/node24/bin/node"


@dataclass
class DoubleBuilt:
    """Images that were built, as the disks of guests in memory. `making_now` counts who holds a key."""

    disks: dict[str, MemoryDisk] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    making_now: int = 0
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def find(self, key: str) -> str | None:
        return key if key in self.disks else None

    @asynccontextmanager
    async def making(self, key: str, waiting: Callable[[], None]) -> AsyncIterator[None]:
        lock = self.locks.setdefault(key, asyncio.Lock())
        if lock.locked():
            waiting()
        async with lock:
            self.making_now += 1
            try:
                yield
            finally:
                self.making_now -= 1

    async def make(self, key: str, write: WriteArchive, description: str) -> str:
        with TemporaryFile() as file:
            await write(file.fileno())
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:
                self.disks[key] = disk_of(archive)
        self.made.append(description)
        return key


def disk_of(archive: tarfile.TarFile) -> MemoryDisk:
    disk = MemoryDisk()
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink"}
    for member in archive:
        node = Node(kinds[member.type], member.mode, member.uid, member.gid)
        if member.isfile():
            node.content.write(0, archive.extractfile(member).read())
        if member.issym():
            node.target = member.linkname.encode()
        disk.put(f"/{member.name}".encode(), node)
    return disk


@dataclass
class DoubleLender:
    """Lends guests in memory, with these `files` and `programs` in them; `lent` counts those out now, `most` how many there were at once.
    `containers` are the images there are, and `ports` what listens in machines of an image; `asked` is what was lent, `nodes` with which Node.js,
    `tools` with which tools, which are in the machine then."""

    capacity: int = 4
    failure: Exception | None = None
    lent: int = 0
    most: int = 0
    guests: list[GuestDouble] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    turns: Turns | None = None
    containers: dict[str, ImageConfig] = field(default_factory=dict)
    ports: dict[str, dict[int | bytes, Port]] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=lambda: {"bash": shell, "sh": shell, NODE: shell})
    logins: list[Login | None] = field(default_factory=list)
    asked: list[tuple[str, Resources, str]] = field(default_factory=list)
    nodes: list[Path | None] = field(default_factory=list)
    tools: list[tuple[str, ...]] = field(default_factory=list)
    built: DoubleBuilt = field(default_factory=DoubleBuilt)
    shelters: list[Path] = field(default_factory=list)

    @contextmanager
    def shelter(self) -> Iterator[Path]:
        with TemporaryDirectory() as directory:
            self.shelters.append(Path(directory))
            yield Path(directory)

    async def images(self) -> list[str]:
        return ["base", "toolchain"]

    async def container(self, image: str, login: Login | None, say: Callable[[str], None]) -> ContainerImage:
        self.logins.append(login)
        if image not in self.containers:
            raise ContainerError(f"there is no image `{image}` on this node", hint="Make one.")
        return ContainerImage(name=image, config=self.containers[image])

    @asynccontextmanager
    async def lend(
        self,
        image: str,
        resources: Resources,
        *,
        purpose: str,
        say: Callable[[str], None],
        node: Path | None = None,
        tools: Sequence[StoredTool] = (),
        companions: int = 0,
        tenant: str = "",
    ) -> AsyncIterator[Loan]:
        self.nodes.append(node)
        self.tools.append(tuple(tool.name.path for tool in tools))
        self.turns = self.turns or Turns(self.capacity)
        async with (
            self.turns.take(1 + companions),
            self._lend(image, resources, purpose, self.files) as loan,
        ):
            for tool in tools:
                place = f"{TOOL_CACHE}/{tool.name.path}"
                await loan.guest.upload(tool.tree, place)
                await loan.guest.files.write(f"{place}.complete", b"")
            yield loan

    def lend_companion(
        self, image: str, resources: Resources, *, purpose: str, say: Callable[[str], None], tenant: str = ""
    ) -> AbstractAsyncContextManager[Loan]:
        return self._lend(image, resources, purpose, {})

    def lend_booted(
        self, image: str, resources: Resources, *, purpose: str, say: Callable[[str], None]
    ) -> AbstractAsyncContextManager[Loan]:
        return self._lend(image, resources, purpose, {})

    @asynccontextmanager
    async def _lend(self, image: str, resources: Resources, purpose: str, files: dict[str, str]) -> AsyncIterator[Loan]:
        if self.failure is not None:
            raise self.failure
        self.asked.append((image, resources, purpose))
        guest = GuestDouble(programs=self.programs, grace_s=0.05)
        if image in self.built.disks:
            guest.disk = MemoryDisk.load(self.built.disks[image].save())
        guest.ports = dict(self.ports.get(image, {}))
        for path, text in files.items():
            guest.disk.open(path.encode(), parents=True, truncate=True).content.write(0, text.encode())
        self.guests.append(guest)
        self.lent += 1
        self.most = max(self.most, self.lent)
        try:
            async with Agent.connect(guest.connect(), Identity.fresh("job"), timeout=5) as agent:
                with TemporaryDirectory() as scratch:
                    machine = f"m{len(self.guests)}"
                    yield Loan(guest=agent, machine=machine, start="fork", start_ms=1.0, scratch=Path(scratch))
        finally:
            self.lent -= 1
            await guest.close()
            assert guest.violations == []


@dataclass
class DoubleActions:
    """An `ActionSource` of what tests put into `directory`: `owner/name@ref/...`. `fetched` is what was asked for."""

    directory: Path
    fetched: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, str]) -> None:
        for path, text in files.items():
            target = self.directory / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))

    async def fetch(self, action: RemoteAction, say: Callable[[str], None], held: ExitStack) -> ActionTree:
        name = f"{action.repository}@{action.ref}"
        self.fetched.append(name)
        if not (self.directory / name).is_dir():
            raise ActionError(f"cannot get the action {str(action)!r}: nobody has it", hint="Make it.")
        return ActionTree(self.directory / name, hashlib.sha1(name.encode()).hexdigest())

    async def node(self, say: Callable[[str], None]) -> Path:
        self.add("node", {"bin/node": "the program"})
        return self.directory / "node"


@dataclass
class Told:
    """What a run has said."""

    events: list[Event]
    result: RunResult

    def lines(self, job: str = "build", step: int | None = None) -> list[str]:
        found = [e for e in self.events if isinstance(e, LogLine) and e.job == job]
        return [e.text for e in found if step is None or e.step == step]

    def steps(self, job: str = "build") -> list[str]:
        return [e.conclusion.value for e in self.events if isinstance(e, StepFinished) and e.job == job]

    def jobs(self) -> dict[str, str]:
        return {e.job: e.conclusion.value for e in self.events if isinstance(e, JobFinished)}

    def annotations(self) -> list[Annotation]:
        return [e for e in self.events if isinstance(e, Annotation)]

    def artifacts(self) -> list[ArtifactStored]:
        return [e for e in self.events if isinstance(e, ArtifactStored)]


@dataclass
class Bed:
    """Where runs are tried."""

    directory: Path
    lender: DoubleLender
    settings: NodeSettings
    actions: DoubleActions
    results: NodeResults | None = None
    shelf: ToolShelf | None = None

    def local(self, path: str, files: dict[str, str]) -> None:
        """Put an action into the workspace of every job."""
        self.lender.files |= {f"{WORKSPACE}/{path}/{name}": textwrap.dedent(text) for name, text in files.items()}

    def order(self, text: str, source: Mapping[str, object] | None = None, **fields: object) -> RunOrder:
        """`source` and `fields` replace what there is without them."""
        path = self.directory / "source"
        path.mkdir(exist_ok=True)
        given = {"path": path, "repository": "octo/hello", "ref": "refs/heads/main", "sha": "a" * 40, **(source or {})}
        return RunOrder(
            id="run-1",
            workflow=read_workflow(textwrap.dedent(text), "ci.yml"),
            source=Source(**given),
            artifact_dir=self.directory / "artifacts",
            **fields,
        )

    @asynccontextmanager
    async def live(self, text: str, **fields: object) -> AsyncIterator[Run]:
        journal = Journal.create(self.directory / "runs")
        async with asyncio.timeout(PATIENCE):
            async with start_run(
                self.order(text, **fields),
                self.lender,
                self.settings,
                journal,
                actions=self.actions,
                results=self.results,
                tools=self.shelf,
            ) as run:
                yield run
            assert self.lender.lent == 0

    async def run(self, text: str, **fields: object) -> Told:
        async with self.live(text, **fields) as run:
            events = [event async for event in run.events()]
            return Told(events, await run.result())


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    settings = NodeSettings(interrupt_s=0.05, terminate_s=0.05, cancel_s=1.0)
    return Bed(tmp_path, DoubleLender(), settings, DoubleActions(tmp_path / "actions"))


@pytest.fixture
def forks(tmp_path: Path):
    """Runs on machines that can be saved."""
    from tests.unit.node.forks import Forks

    return Forks(tmp_path)
