"""The tools of one job: what its machine begins with, and what is kept of what it added.

choose(entries)    before there is a machine: what it should have
look(guest)        before the first step: what it has
keep(bench)        when the job has succeeded: what is new goes to the shelf, and what was used is noted
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from firebrick.guest.client import TreeLimits
from firebrick.guest.errors import GuestError
from firebrick.node.action.use import CompositeUse, Entry
from firebrick.node.context import TOOL_CACHE
from firebrick.node.errors import NodeError, ToolError, told
from firebrick.node.guest import Guest
from firebrick.node.log import JobLog
from firebrick.node.tool.inside import tools_inside, tools_named
from firebrick.node.tool.limits import MOST_ADDED, MOST_FILES
from firebrick.node.tool.name import StoredTool, ToolName
from firebrick.node.tool.scope import JobScope
from firebrick.node.tool.shelf import ToolShelf
from firebrick.task import race

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_SPEAKS_OF_IT: Final = re.compile(r"TOOL_CACHE|AGENT_TOOLSDIRECTORY|runner\.tool_cache|hostedtoolcache", re.IGNORECASE)


def speaks_of_tools(entries: Iterable[Entry]) -> bool:
    """Whether a script of these steps, as far as it is known before they run, says where tools are."""
    for entry in entries:
        if entry.step.run is not None and _SPEAKS_OF_IT.search(entry.step.run.raw):
            return True
        if isinstance(entry.use, CompositeUse) and speaks_of_tools(entry.use.entries):
            return True
    return False


class JobTools:
    """See above. Used by one task at a time."""

    def __init__(self, shelf: ToolShelf, job: JobScope, log: JobLog) -> None:
        self._shelf = shelf
        self._job = job
        self._log = log
        self._before: frozenset[ToolName] | None = None

    async def choose(self, *, searching: bool, scratch_mib: int) -> tuple[StoredTool, ...]:
        """See `ToolShelf.choose`. More than half of its disk a machine does not begin with."""
        most = (scratch_mib << 20) // 2
        return await asyncio.to_thread(self._shelf.choose, self._job, searching=searching, most_bytes=most)

    async def look(self, guest: Guest) -> None:
        """Nothing is kept of a machine that was not looked at when it was fresh: nobody knows what is new there."""
        if self._job.write is None:
            return
        try:
            self._before = await tools_inside(guest.files)
        except (GuestError, ToolError) as error:
            self._log.node(f"The tools of this job are not kept: {told(error)}")

    async def keep(self, bench: Bench) -> None:
        """What goes wrong is said, and changes nothing about the job. A cancellation of the job ends it: a tool is kept whole or not at all."""
        if self._before is None:
            return
        cancelled = bench.cancellation.requested.wait()
        await race(self._keep(bench, self._before), cancelled, name=f"keep-tools-{self._job.job}")

    async def _keep(self, bench: Bench, before: frozenset[ToolName]) -> None:
        try:
            now = await tools_inside(bench.guest.files)
            new = sorted(now - before)
            if new and self._shelf.limits.keep:
                known = await asyncio.to_thread(self._shelf.known, self._job)
                for name in [name for name in new if name not in known][:MOST_ADDED]:
                    await self._keep_one(bench.guest, name)
            named = tools_named([*bench.path, *bench.env.values()]) & now
            await self._shelf.note(self._job, [*new, *sorted(named - set(new))])
        except (GuestError, NodeError, OSError) as error:
            self._log.node(f"The tools of this job are not kept: {told(error)}")

    async def _keep_one(self, guest: Guest, name: ToolName) -> None:
        limits = TreeLimits(
            entries=MOST_FILES, bytes=self._shelf.limits.tool_bytes, file_bytes=self._shelf.limits.tool_bytes
        )
        try:
            async with self._shelf.drafted() as draft:
                await guest.download(f"{TOOL_CACHE}/{name.path}", draft, limits=limits)
                kept = await self._shelf.put(draft, name, self._job)
        except (GuestError, NodeError) as error:
            self._log.node(f"The tool {name} is not kept: {told(error)}")
            return
        if kept is None:
            self._log.node(f"The tool {name} is not kept: there is no room for it beside what others keep.")
        else:
            self._log.node(f"The tool {name} is kept for later jobs ({kept.size / (1 << 20):.0f} MiB).")
