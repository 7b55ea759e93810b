"""What the pages of the documentation show: fenced blocks, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.place import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_HERE_DOCUMENT = re.compile(r"<< '(?P<end>\w+)'$")


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    options: frozenset[str]
    body: str

    def commands(self) -> list[str]:
        """Of `console`, what stands behind a prompt, here documents included; of `sh`, each line without its comment."""
        if self.language == "sh":
            return [line for raw in self.body.splitlines() if (line := re.sub(r"\s+#.*$", "", raw).strip())]
        found: list[str] = []
        end = None
        for line in self.body.splitlines():
            if end is not None:
                found[-1] += f"\n{line}"
                end = None if line == end else end
            elif line.startswith("$ "):
                found.append(line[2:])
                document = _HERE_DOCUMENT.search(line)
                end = document["end"] if document else None
        return found


def blocks(page: Path) -> list[Block]:
    found = []
    for match in _FENCE.finditer(page.read_text()):
        language, *options = match["info"].split() or [""]
        found.append(Block(page, language, frozenset(options), match["body"]))
    return found


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    return [match["target"] for match in _LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """As the usual forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", match["text"].lower()).replace(" ", "-") for match in _HEADING.finditer(prose(page))
    }


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))
