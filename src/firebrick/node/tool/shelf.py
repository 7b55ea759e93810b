"""The tools of a node, below `tools/` of the home: trees by their digest, and records that say whose they are (see `entry`).

    trees/<sha256>/     what was at `<tool>/<version>/<architecture>` of some tool cache

Several processes share it, and each may be killed at any moment: whatever is made is made as a draft and renamed, a tree before the record that
names it. One lock is held by who changes something. Reading takes none: a tree that goes meanwhile is missed by who reads it, and one that is
not what its digest says, because a host lost its power, is found out before a machine gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from firebrick.eviction import last_use, touch
from firebrick.lock import hold_lock
from firebrick.machine.drafts import discard, draft_name, retire, sweep_drafts
from firebrick.node.errors import ToolError, ToolLostError
from firebrick.node.tool import entry as records
from firebrick.node.tool.digest import measure
from firebrick.node.tool.entry import ToolEntry, ToolRecord, UsedRecord
from firebrick.node.tool.limits import MOST_JOBS, MOST_JOBS_OF_ALL, ToolLimits
from firebrick.node.tool.name import StoredTool, ToolName
from firebrick.node.tool.quota import beyond
from firebrick.node.tool.scope import JobScope
from firebrick.task import shielded

_EVERYBODY: Final = ""


class ToolShelf:
    """The tools that are kept at `root`, within these limits."""

    def __init__(self, root: Path, limits: ToolLimits) -> None:
        self.limits = limits
        self._root = root
        self._trees = root / "trees"

    # --- what a job finds ---

    def choose(self, job: JobScope, *, searching: bool, most_bytes: int) -> tuple[StoredTool, ...]:
        """What a machine for the job should have, in the order of names, and noted as used now. Blocking, and quick.

        A job that has run before gets what it used, and what an administrator has added. One that has not, all it may read, if it is
        `searching`: if it will probably look. What was used last comes first where that is more than it may have."""
        used = self._used(job)
        if not (searching or used):
            return ()
        found = self._readable(job)
        if used is not None:
            found = {name: each for name, each in found.items() if each.is_seed or name.path in used}
        chosen, left = [], min(most_bytes, self.limits.job_bytes)
        for each in sorted(found.values(), key=lambda each: (-each.used, each.name)):
            if each.record.disk_bytes <= left:
                left -= each.record.disk_bytes
                touch(each.file)
                chosen.append(self._stored(each.name, each.record))
        return tuple(sorted(chosen, key=lambda tool: tool.name))

    def known(self, job: JobScope) -> frozenset[ToolName]:
        """All that the job may read. Blocking, and quick."""
        return frozenset(self._readable(job))

    def _readable(self, job: JobScope) -> dict[ToolName, ToolEntry]:
        """Of tools with the same name, an administrator's, else the one whose scope is searched first."""
        own = list(records.entries_in(records.folder_of(self._root, job.tenant)))
        found: dict[ToolName, ToolEntry] = {}
        for scope in reversed(job.read):
            found |= {each.name: each for each in own if each.record.scope == scope}
        return found | {each.name: each for each in self._seeds()}

    def _seeds(self) -> Iterable[ToolEntry]:
        return records.entries_in(records.folder_of(self._root, _EVERYBODY))

    def _used(self, job: JobScope) -> frozenset[str] | None:
        """The paths of tools the job has used, as far as it may know; None where it has not run yet."""
        found = [records.read_used(records.used_file(self._root, job, scope)) for scope in job.read]
        known = [record for record in found if record is not None]
        return frozenset(path for record in known for path in record.tools) if known else None

    def _stored(self, name: ToolName, record: ToolRecord) -> StoredTool:
        return StoredTool(name, record.sha256, record.size, self._trees / record.sha256)

    async def check(self, tool: StoredTool) -> None:
        """Raises ToolLostError for one that is gone, or is not what its digest says; then it is forgotten."""
        try:
            found = await asyncio.to_thread(measure, tool.tree, most_bytes=tool.size)
            if found.sha256 == tool.sha256:
                return
            problem = f"the tool {tool.name} is not what it was: its digest is {found.sha256}"
        except ToolError as error:
            problem = f"the tool {tool.name} cannot be used: {error}"
        async with self._locked():
            await shielded(asyncio.to_thread(self._forget, tool.sha256))
        raise ToolLostError(problem, tool.name.path, hint="It is forgotten, and kept again when a job brings it.")

    def _forget(self, sha256: str) -> None:
        for each in self._all():
            if each.record.sha256 == sha256:
                each.file.unlink(missing_ok=True)
        self._sweep()

    # --- what is kept ---

    @asynccontextmanager
    async def drafted(self) -> AsyncIterator[Path]:
        """A path where the tree of a tool can be made; what becomes of it is said with `put`. Gone at the end unless it was put.

        Raises ToolError where the disk has no room for one."""
        self._trees.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self._trees).free >> 20
        if free < self.limits.free_mib + self.limits.tool_mib:
            raise ToolError(
                f"there are only {free} MiB free for a tool",
                hint="`firebrick tools rm` removes some; `tool_mib` in the table [node.tools] of config.toml bounds one.",
            )
        draft = self._trees / draft_name("tool")
        try:
            yield draft
        finally:
            await shielded(asyncio.to_thread(discard, draft))

    async def put(self, draft: Path, name: ToolName, job: JobScope | None) -> StoredTool | None:
        """Make the draft the tool that later jobs find by this name: in the scope of `job`, unless there is one, or everywhere, in place of the one
        that was there. None where there is no room for it beside what is worth more.

        Raises ToolError for what is no tool, or too large a one."""
        found = await shielded(asyncio.to_thread(measure, draft, most_bytes=self.limits.tool_bytes))
        record = ToolRecord(
            version=records.VERSION,
            tenant=job.tenant if job is not None else _EVERYBODY,
            repository=job.repository if job is not None else "",
            scope=(job.write or "") if job is not None else "",
            path=name.path,
            sha256=found.sha256,
            size=found.size,
            paths=found.paths,
            at=time.time(),
        )
        async with self._locked():
            there = await shielded(asyncio.to_thread(self._put, draft, record, name))
        return self._stored(name, there) if there is not None else None

    def _put(self, draft: Path, record: ToolRecord, name: ToolName) -> ToolRecord | None:
        file = records.entry_file(self._root, record.tenant, record.scope, name)
        if record.tenant and (there := records.read(file, ToolRecord)) is not None:  # another job was faster
            return there
        target = self._trees / record.sha256
        if not target.exists():
            draft.rename(target)
        records.write(file, record)
        self._sweep()
        return record if file.exists() else None

    async def note(self, job: JobScope, used: Sequence[ToolName]) -> None:
        """The job has succeeded, and has used these tools besides those it had used before. Raises OSError."""
        if job.write is None:
            return
        file = records.used_file(self._root, job, job.write)
        before = records.read_used(file)
        tools = records.remembered(before.tools if before is not None else (), used)
        if before is not None and before.tools == tools:
            touch(file)
            return
        async with self._locked():
            record = UsedRecord(version=records.VERSION, tools=tools)
            await shielded(asyncio.to_thread(self._note, file, record))

    def _note(self, file: Path, record: UsedRecord) -> None:
        records.write(file, record)
        jobs = file.parent.parent
        for found, most in ((file.parent.glob("[!.]*.json"), MOST_JOBS), (jobs.glob("*/[!.]*.json"), MOST_JOBS_OF_ALL)):
            for old in sorted(found, key=last_use)[:-most]:
                old.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # others are in it
                    old.parent.rmdir()

    # --- what an administrator does ---

    def entries(self) -> list[ToolEntry]:
        """All there is: an administrator's first, then by repository, ref and name."""
        return sorted(self._all(), key=lambda each: (each.record.tenant, each.record.scope, each.name))

    async def remove(self, gone: Iterable[ToolEntry]) -> None:
        """Machines that are made from a template with such a tool have it until that template goes."""
        async with self._locked():
            for each in gone:
                each.file.unlink(missing_ok=True)
            await shielded(asyncio.to_thread(self._sweep))

    async def sweep(self) -> None:
        """Remove what is beyond the limits, and what killed processes have left."""
        if self._root.is_dir():
            async with self._locked():
                await shielded(asyncio.to_thread(self._sweep))

    # --- with the lock held ---

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        async with hold_lock(self._root / ".lock"):
            yield

    def _all(self) -> Iterable[ToolEntry]:
        for folder in (self._root / "entries").glob("[!.]*"):
            yield from records.entries_in(folder)

    def _sweep(self) -> None:
        for each in beyond(self._all(), self.limits):
            each.file.unlink(missing_ok=True)
        wanted = {each.record.sha256 for each in self._all()}
        for path in self._trees.glob("[!.]*"):
            if path.name not in wanted:
                with contextlib.suppress(OSError):
                    retire(path)
        for folder in (self._trees, *self._root.glob("jobs/[!.]*"), *self._root.glob("entries/[!.]*")):
            sweep_drafts(folder)
