"""Whether the steps of a job will run in Node.js, as far as that can be told before there is a machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from firebrick.node.action.definition import read_from_tree
from firebrick.node.action.fetched import MOST_FETCHED, parsed_uses
from firebrick.node.action.native import is_native
from firebrick.node.action.use import CompositeUse, Entry, JavaScriptUse, entries_of
from firebrick.node.errors import ActionError
from firebrick.workflow.action_file import CompositeRuns, JavaScriptRuns
from firebrick.workflow.uses import RemoteAction


async def runs_javascript(entries: Iterable[Entry], sources: Path, seen: set[str] | None = None) -> bool:
    """Actions of the workspace are looked for in `sources`, from where they will probably come. `seen` is what was looked at already."""
    seen = set() if seen is None else seen
    for entry in entries:
        match entry.use:
            case JavaScriptUse():
                return True
            case CompositeUse(entries=own):
                if await runs_javascript(own, sources, seen):
                    return True
            case None if entry.step.uses is not None and entry.step.uses not in seen:
                seen.add(entry.step.uses)
                if await _may_run_javascript(entry.step.uses, sources, seen):
                    return True
            case _:
                pass
    return False


async def _may_run_javascript(uses: str, sources: Path, seen: set[str]) -> bool:
    action = parsed_uses(uses)
    if isinstance(action, RemoteAction):
        return not is_native(action)
    try:
        file = await read_from_tree(sources, str(action), called=str(action))
    except ActionError:
        return False
    if isinstance(file.runs, CompositeRuns):
        return len(seen) < MOST_FETCHED and await runs_javascript(entries_of(file.runs.steps), sources, seen)
    return isinstance(file.runs, JavaScriptRuns)
