"""What bubblewrap is told to show, and what it tells of what ended. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from firebrick.machine.errors import HostError

PROGRAM: Final = "bwrap"
_SIGNAL_BASE: Final = 128
_SIGNALS: Final = 64


def view(
    read: Collection[Path], write: Collection[Path], devices: Iterable[tuple[Path, Path]], *, links: Iterable[str] = ()
) -> Iterator[str]:
    """A root with these files and directories alone, under the paths they have on the host. `devices` are (where it is, where it is seen) and,
    like all that is below them, may be device nodes; `links` are names in the root of what is in /usr.

    Directories on the way to something are made passable: bwrap would make them root's alone."""
    devices = list(devices)
    paths = [*sorted(read), *sorted(write)]
    for directory in _above([*paths, *(seen for _, seen in devices)]):
        yield from ("--perms", "0755", "--dir", str(directory))
    for name in links:
        yield from ("--symlink", f"usr/{name}", f"/{name}")
    yield from ("--proc", "/proc")
    for path in paths:
        yield from ("--bind" if path in write else "--ro-bind", str(path), str(path))
    for where, seen in devices:
        yield from ("--dev-bind", str(where), str(seen))


def _above(paths: Collection[Path]) -> list[Path]:
    directories = {parent for path in paths for parent in path.parents} - {Path("/"), *paths}
    return sorted(d for d in directories if not any(d.is_relative_to(path) for path in paths))


def own_status(returncode: int) -> int:
    """A program's status from bwrap's, which tells a signal by a number above 128 as shells do."""
    if _SIGNAL_BASE < returncode <= _SIGNAL_BASE + _SIGNALS:
        return _SIGNAL_BASE - returncode
    return returncode


def child_in(text: str) -> int:
    """The number in what bwrap says of itself: `{"child-pid": 7, ...}`. Raises HostError."""
    try:
        return int(json.loads(text)["child-pid"])
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"cannot tell from {text!r} what bwrap has started") from error
