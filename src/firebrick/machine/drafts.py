"""Drafts: files and directories that are being made, or are on their way out. They are hidden, and have the process in their name that they are of, so
that what it leaves when it is killed is found by the next one."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
from pathlib import Path
from typing import Final

from firebrick import tree
from firebrick.machine.jail.record import start_of

_DRAFT: Final = re.compile(r"\..+\.(?P<pid>[0-9]+)-(?P<started>[0-9]+)\.[0-9a-f]{8}")


@functools.cache
def start_of_me(pid: int) -> int:
    """Of this process: it is asked for with every machine. A fork of it has another number."""
    return start_of(pid) or 0


def draft_name(name: str) -> str:
    """For a file or directory that is being made, and will be called `name` in one step."""
    return f".{name}.{os.getpid()}-{start_of_me(os.getpid())}.{secrets.token_hex(4)}"


def sweep_drafts(directory: Path) -> None:
    """Remove what processes that died have left unfinished in `directory`. Drafts of other users are left alone."""
    with contextlib.suppress(OSError):
        for entry in directory.glob(".*"):
            match = _DRAFT.fullmatch(entry.name)
            if match is not None and start_of(int(match["pid"])) != int(match["started"]):
                discard(entry)


def discard(draft: Path) -> None:
    """Remove it, whatever it is: a guest may have sent a file where a directory is wanted. Raises OSError."""
    if draft.is_dir() and not draft.is_symlink():
        tree.remove(draft)
    else:
        draft.unlink(missing_ok=True)


def retire(path: Path) -> None:
    """Remove what is in its place, in one step for all others: as a draft, which is what a process leaves that is killed in the middle. Raises OSError."""
    discard(path.rename(path.with_name(draft_name(path.name))))
