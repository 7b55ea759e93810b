"""Templates: machines that were booted once, warmed up and saved, so that every other one starts as a fork of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from firebrick.eviction import touch
from firebrick.guest.errors import AgentError, GuestError, TreeError
from firebrick.home import Home
from firebrick.image.model import Image, Kernel
from firebrick.image.store import ImageStore
from firebrick.lock import hold_lock
from firebrick.machine import Driver, Machine, MachineSpec, Network, NetworkPolicy, Snapshot, SnapshotError, launch
from firebrick.node.context import EXTERNALS, TOOL_CACHE
from firebrick.node.errors import ToolLostError
from firebrick.node.guest import Say
from firebrick.node.order import Resources
from firebrick.node.pool.quota import beyond, note_user, use_of
from firebrick.node.tool.name import MARKER, StoredTool
from firebrick.node.tool.shelf import ToolShelf

# What jobs run first: read once before the snapshot, so that every fork finds it in its page cache.
_WARM_UP: Final = (
    ("sh", "-c", "true"),
    ("bash", "-c", "true"),
    ("env", "true"),
    ("ls", "/"),
    ("git", "--version"),
    ("make", "--version"),
    ("cc", "--version"),
    ("python3", "-c", "pass"),
    (f"{EXTERNALS}/bin/node", "-e", "0"),
)
_WARM_UP_S: Final = 10.0


def machine_spec(
    image: Image, kernel: Kernel, resources: Resources, driver: Driver, *, network: Network, policy: NetworkPolicy
) -> MachineSpec:
    return MachineSpec(
        kernel=kernel.elf if driver.name == "firecracker" else kernel.path,
        initrd=kernel.initrd,
        root=image.path,
        vcpus=resources.vcpus,
        memory_mib=resources.memory_mib,
        scratch_mib=resources.scratch_mib,
        kernel_args=kernel.args,
        network=network,
        policy=policy,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a template is made of: a machine like `spec`, its image and kernel, with Node.js where `node` is its directory, and with these tools.
    `tenant` is whose job it is for, where it is for one."""

    spec: MachineSpec
    image: Image
    kernel: Kernel
    node: Path | None = None
    tools: tuple[StoredTool, ...] = ()
    tenant: str = ""

    @property
    def words(self) -> str:
        extras = [*(["Node.js"] if self.node else []), *(str(tool.name) for tool in self.tools)]
        return ", ".join([f"{self.spec.vcpus} vcpus", f"{self.spec.memory_mib} MiB", *extras])


class TemplateShelf:
    """The templates of a home, shared by every process that uses it: one makes a template, the others wait for it and use it too."""

    def __init__(self, home: Home, driver: Driver, images: ImageStore, tools: ToolShelf, *, kept: int) -> None:
        self._home = home
        self._driver = driver
        self._images = images
        self._tools = tools
        self._kept = kept

    async def key(self, recipe: Recipe) -> str:
        """Everything a snapshot depends on: what the machine is, its image and kernel with the agent, its Node.js and its tools, the driver and
        the host."""
        spec, image, kernel = recipe.spec, recipe.image, recipe.kernel
        facts = dict(sorted((await self._driver.facts(spec)).items()))
        parts = (self._driver.name, facts, image.digest, kernel.digest, str(spec.kernel), str(spec.root))
        sizes = (spec.vcpus, spec.memory_mib, spec.scratch_mib, spec.kernel_args, spec.network.value)
        more: tuple[object, ...] = (recipe.node.name,) if recipe.node is not None else ()
        if recipe.tools:
            more = (*more, [(tool.name.path, tool.sha256) for tool in recipe.tools])
        return hashlib.sha256(msgspec.json.encode((parts, sizes, *more))).hexdigest()[:24]

    async def ensure(self, recipe: Recipe, say: Say) -> Snapshot:
        """The template; booted and saved first if there is none, or none that is whole. Raises MachineError, ToolLostError."""
        path = self._home.templates / await self.key(recipe)
        found = await asyncio.to_thread(self._load, path, recipe.tenant)
        if found is not None:
            return found
        lock = path.with_name(f".{path.name}.lock")
        async with hold_lock(lock, waiting=lambda: say("Another process makes the template for this machine.")):
            found = await asyncio.to_thread(self._load, path, recipe.tenant)
            if found is None:
                await asyncio.to_thread(self._forget_drafts, path)
                for tool in recipe.tools:
                    await self._tools.check(tool)
                say(f"Making the template for {recipe.image.name} ({recipe.words}): booting it once.")
                found = await self._make(path, recipe, say)
                await asyncio.to_thread(note_user, path, recipe.tenant)
                await asyncio.to_thread(self._make_room, path)
            return found

    async def discard(self, template: Snapshot) -> None:
        """For one that turned out not to start. Machines that run from it have their own names for its files."""
        await asyncio.to_thread(shutil.rmtree, template.path, ignore_errors=True)

    def _load(self, path: Path, tenant: str) -> Snapshot | None:
        """Noted as used. None where there is none, or where it is damaged: then it is removed."""
        if not path.is_dir():
            return None
        try:
            found = Snapshot.load(path)
        except SnapshotError:
            shutil.rmtree(path, ignore_errors=True)
            return None
        note_user(path, tenant)
        touch(path)
        return found

    async def _make(self, path: Path, recipe: Recipe, say: Say) -> Snapshot:
        async with launch(recipe.spec, self._driver, home=self._home.root, hostname="template") as machine:
            if recipe.node is not None:
                await _add_node(machine, recipe.node, say)
            for tool in recipe.tools:
                await _add_tool(machine, tool)
            await _warm_up(machine)
            taken = await machine.snapshot(path)
        self._images.claim(recipe.image, path)
        return taken

    def _forget_drafts(self, path: Path) -> None:
        """What a process that was killed in the middle has left. The lock is held, so nobody writes there."""
        for draft in path.parent.glob(f".{path.name}.*"):
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)

    def _make_room(self, newest: Path) -> None:
        """Templates from which a machine is being started just now stay."""
        templates = [
            entry for entry in self._home.templates.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        ]
        for each in beyond([use_of(entry) for entry in templates], self._kept, spared=newest):
            _forget(each.path)


def _forget(path: Path) -> None:
    """What is no snapshot any more is nobody's to use."""
    try:
        found = Snapshot.load(path)
    except SnapshotError:
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(SnapshotError):  # in use: the next time
        found.remove()


async def _add_node(machine: Machine, node: Path, say: Say) -> None:
    """Where there is no room for it a template without it is still of use: a job that needs it will be told."""
    try:
        await machine.upload(node, EXTERNALS, uid=0, gid=0)
    except AgentError as error:
        say(f"Node.js is left out of the template: {error}")
        await machine.files.remove(EXTERNALS, recursive=True, missing_ok=True)


async def _add_tool(machine: Machine, tool: StoredTool) -> None:
    """The marker comes last, as of all that put tools there. An image that has the tool keeps its own. Raises ToolLostError."""
    place = f"{TOOL_CACHE}/{tool.name.path}"
    try:
        if not await machine.files.exists(place + MARKER):
            await machine.upload(tool.tree, place, uid=0, gid=0)
            await machine.files.write(place + MARKER, b"", uid=0, gid=0)
    except (AgentError, TreeError) as error:
        raise ToolLostError(f"cannot put the tool {tool.name} into a template: {error}", tool.name.path) from error


async def _warm_up(machine: Machine) -> None:
    """Images need not have any of these, and nothing depends on how they end."""
    for argv in _WARM_UP:
        with contextlib.suppress(GuestError):
            await machine.run(argv, timeout=_WARM_UP_S)
