"""What is in the tool cache of a machine. Names come from a guest: what is none of ours, and what is beyond the limits, is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from firebrick.guest.client import Files
from firebrick.guest.errors import FileMissingError, NotADirectoryInGuestError
from firebrick.guest.message import Entry
from firebrick.node.context import TOOL_CACHE
from firebrick.node.tool.name import MARKER, ToolName

_MOST_TOOLS: Final = 64
_MOST_VERSIONS: Final = 256  # of all tools
_NAMED: Final = re.compile(re.escape(TOOL_CACHE) + r"/([^/:\s]{1,100}/[^/:\s]{1,100}/[^/:\s]{1,100})(?=[/:\s]|$)")


async def tools_inside(files: Files) -> frozenset[ToolName]:
    """Those that are complete. Raises AgentError, OutputTooLargeError."""
    found: set[ToolName] = set()
    left = _MOST_VERSIONS
    for tool in (await _directories(files, TOOL_CACHE))[:_MOST_TOOLS]:
        versions = (await _directories(files, f"{TOOL_CACHE}/{tool}"))[:left]
        left -= len(versions)
        for version in versions:
            found |= _complete(tool, version, await _list(files, f"{TOOL_CACHE}/{tool}/{version}"))
    return frozenset(found)


def _complete(tool: str, version: str, entries: Iterable[Entry]) -> set[ToolName]:
    kinds = {entry.name.decode(errors="replace"): entry.kind for entry in entries}
    names = (ToolName.parse(tool, version, arch) for arch, kind in kinds.items() if kind == "directory")
    return {name for name in names if name is not None and kinds.get(name.arch + MARKER) == "file"}


async def _directories(files: Files, path: str) -> list[str]:
    """Of those that may be a part of a tool's name."""
    names = (entry.name.decode(errors="replace") for entry in await _list(files, path) if entry.kind == "directory")
    return [name for name in names if ToolName.parse(name, name, "any") is not None]


async def _list(files: Files, path: str) -> list[Entry]:
    try:
        return await files.list(path)
    except (FileMissingError, NotADirectoryInGuestError):
        return []


def tools_named(texts: Iterable[str]) -> set[ToolName]:
    """Those into which one of these texts leads: values of variables, directories of the search path."""
    paths = (match[1] for text in texts for match in _NAMED.finditer(text))
    return {name for path in paths if (name := ToolName.from_path(path)) is not None}
