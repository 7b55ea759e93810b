"""What a tool is called. `@actions/tool-cache` puts it at `<tool>/<version>/<architecture>`, and beside it the empty file
`<architecture>.complete` once all of it is there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARKER: Final = ".complete"
# No name of a directory above or of a hidden one, and none that needs quoting anywhere.
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,99}")
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,14})"
_WORD: Final = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_WORD}(?:\.{_WORD})*)?")


@dataclass(frozen=True, slots=True, order=True)
class ToolName:
    """Each part is plain: see `parse`."""

    tool: str
    version: str
    arch: str

    @classmethod
    def parse(cls, tool: str, version: str, arch: str) -> ToolName | None:
        """None where a part is empty, long, or more than letters, digits and `_.+~-`."""
        if not all(map(_PART.fullmatch, (tool, version, arch))) or arch.endswith(MARKER):
            return None
        return cls(tool, version, arch)

    @classmethod
    def from_path(cls, path: str) -> ToolName | None:
        """As `parse`, of a path that is relative to the tool cache."""
        parts = path.split("/")
        return cls.parse(*parts) if len(parts) == 3 else None

    @property
    def is_findable(self) -> bool:
        """Whether `@actions/tool-cache` finds it: it looks for semantic versions, and for those without their build metadata and without a `v`."""
        return _VERSION.fullmatch(self.version) is not None

    @property
    def path(self) -> str:
        """Relative to the tool cache."""
        return f"{self.tool}/{self.version}/{self.arch}"

    def __str__(self) -> str:
        return f"{self.tool} {self.version} ({self.arch})"


@dataclass(frozen=True, slots=True)
class StoredTool:
    """A tool a machine can be given: `tree` is what belongs at its place in the tool cache, `sha256` the digest of that, `size` its bytes."""

    name: ToolName
    sha256: str
    size: int
    tree: Path
