"""What is in the tool cache of a machine. Names come from a guest: what is none of ours, and what is beyond the limits, is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from firebrick.guest.client import Files
from firebrick.guest.errors import FileMissingError, NotADirectoryInGuestError
from firebrick.guest.message import Entry
from firebrick.node.context import TOOL_CACHE
from firebrick.node.errors import ToolError
from firebrick.node.tool.name import MARKER, ToolName

_MOST_TOOLS: Final = 64
_MOST_VERSIONS: Final = 256  # of all tools
_MOST_ENTRIES: Final = 20_000  # in all directories that are listed
_NAMED: Final = re.compile(re.escape(TOOL_CACHE) + r"/([^/:\s]{1,100}/[^/:\s]{1,100}/[^/:\s]{1,100})(?=[/:\s]|$)")


async def tools_inside(files: Files) -> frozenset[ToolName]:
    """Those that are complete. Raises AgentError, OutputTooLargeError, ToolError where there is too much to look at."""
    listing = _Listing(files)
    found: set[ToolName] = set()
    left = _MOST_VERSIONS
    for tool in (await listing.directories(TOOL_CACHE))[:_MOST_TOOLS]:
        versions = (await listing.directories(f"{TOOL_CACHE}/{tool}"))[:left]
        left -= len(versions)
        for version in versions:
            found |= _complete(tool, version, await listing.entries(f"{TOOL_CACHE}/{tool}/{version}"))
    return frozenset(found)


def _complete(tool: str, version: str, entries: Iterable[Entry]) -> set[ToolName]:
    kinds = {entry.name.decode(errors="replace"): entry.kind for entry in entries}
    names = (ToolName.parse(tool, version, arch) for arch, kind in kinds.items() if kind == "directory")
    return {name for name in names if name is not None and kinds.get(name.arch + MARKER) == "file"}


class _Listing:
    """What directories hold, as long as that is not too much altogether."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._left = _MOST_ENTRIES

    async def directories(self, path: str) -> list[str]:
        """Those whose names may be a part of a tool's."""
        found = await self.entries(path)
        names = (entry.name.decode(errors="replace") for entry in found if entry.kind == "directory")
        return [name for name in names if ToolName.parse(name, name, "any") is not None]

    async def entries(self, path: str) -> list[Entry]:
        """None where there is no such directory."""
        try:
            found = await self._files.list(path)
        except (FileMissingError, NotADirectoryInGuestError):
            return []
        self._left -= len(found)
        if self._left < 0:
            raise ToolError(f"{TOOL_CACHE} has more than {_MOST_ENTRIES} entries where tools and their versions are")
        return found


def tools_named(texts: Iterable[str]) -> set[ToolName]:
    """Those into which one of these texts leads: values of variables, directories of the search path."""
    paths = (match[1] for text in texts for match in _NAMED.finditer(text))
    return {name for path in paths if (name := ToolName.from_path(path)) is not None}
