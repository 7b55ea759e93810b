"""Names that resolve inside a guest without any server of names: lines of its `/etc/hosts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from firebrick.guest.client import Files
from firebrick.guest.errors import AgentError
from firebrick.node.content import find_content
from firebrick.node.errors import StepError

HOSTS: Final = "/etc/hosts"
_MARK: Final = "# firebrick"
_LIMIT: Final = 1 << 20
_ALWAYS: Final = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")


async def add_names(files: Files, addresses: Mapping[str, str]) -> None:
    """Let every name resolve to its address. What was added before for other names stays, and what others have written stays as it is, but for
    lines that would give one of the names another address first. To be called by one task of a job at a time.

    Raises AgentError where the file cannot be written."""
    text = await _read(files)
    changed = edited(text, addresses)
    if changed != text:
        await files.write(HOSTS, changed.encode(errors="surrogateescape"), mode=0o644, parents=True)


async def _read(files: Files) -> str:
    """What the image has; a file that cannot be read, or is no such file, counts as none."""
    try:
        content = await find_content(files, HOSTS, _LIMIT)
    except (AgentError, StepError):
        return ""
    return (content or b"").decode(errors="surrogateescape")


def edited(text: str, addresses: Mapping[str, str]) -> str:
    """The text of a hosts file with the names in it, and `localhost` in any case. Doing it twice changes nothing more."""
    known = frozenset(addresses)
    lines = [line for line in text.splitlines() if not _is_about(line, known)]
    if not any("localhost" in _names(line) for line in lines):
        lines = [*_ALWAYS, *lines]
    lines += [f"{address}\t{name}\t{_MARK}" for name, address in sorted(addresses.items())]
    return "\n".join(lines) + "\n"


def _names(line: str) -> list[str]:
    return line.partition("#")[0].split()[1:]


def _is_about(line: str, known: frozenset[str]) -> bool:
    """Whether a line of ours, or one that names nothing else, is about one of these names."""
    names = _names(line)
    return bool(names) and known.issuperset(names)
