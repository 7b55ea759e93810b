"""Where tools that make file systems run: as root of a user namespace of our own, or as root where we are root already.

All of them get a process namespace that ends with us: whatever a tool started, and whatever kills us, nothing goes on running. Without root the
namespace has the caller's subordinate ids, so that files in it can belong to anybody; outside they belong to ids nobody else has, which is why
removing them takes this module too.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from firebrick.image.errors import HostLacksError
from firebrick.process import find_program, run

_IDS_NEEDED: Final = 65536
_NAMESPACES: Final = ("--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
# Modes inside an image must not depend on the umask of who builds it. A constant text: what runs comes as arguments.
_SETTLED: Final = ("sh", "-c", 'umask 022; exec "$@"', "sh")


_PACKAGES: Final = {"sqfstar": "squashfs-tools", "mksquashfs": "squashfs-tools"}


def sandboxed(argv: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The argument list that runs `argv` as root of the sandbox.

    Raises HostLacksError where the program is missing, the user has no subordinate ids, or nothing can hand them out."""
    program = os.fspath(argv[0])
    if find_program(program) is None:
        package = _PACKAGES.get(program, program)
        raise HostLacksError(
            f"cannot run {program}: it is not on this host", hint=f"Install the Debian package {package}."
        )
    if os.geteuid() == 0:
        return ["unshare", *_NAMESPACES, "--", *_SETTLED, *argv]
    require_subordinate_ids()
    return ["unshare", "--user", "--map-root-user", "--map-auto", *_NAMESPACES, "--", *_SETTLED, *argv]


def program_of(argv: Sequence[str]) -> str:
    """The program an argument list is about, whether `sandboxed` made the list or not."""
    start = len(_SETTLED) + argv.index("--") + 1 if "unshare" in argv else 0
    return argv[start]


def require_subordinate_ids() -> None:
    """Raises HostLacksError, with what to do, where this user cannot make a namespace with many ids."""
    if find_program("newuidmap") is None:
        raise HostLacksError(
            "cannot make images without root: newuidmap is not on this host", hint="Install the Debian package uidmap."
        )
    user = pwd.getpwuid(os.geteuid())
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        if subordinate_ids(file, user.pw_name, user.pw_uid) < _IDS_NEEDED:
            raise HostLacksError(
                f"cannot make images without root: {file} gives the user {user.pw_name} no range of {_IDS_NEEDED} ids",
                hint=f"As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user.pw_name}",
            )


def subordinate_ids(file: Path, name: str, uid: int) -> int:
    """How many ids the longest range of this user has in /etc/subuid or /etc/subgid. Ranges are not added up: one mapping is one range."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    rows = [line.split(":") for line in lines if line.count(":") == 2]
    return max(
        (int(count) for owner, _, count in rows if owner in (name, str(uid)) and count.strip().isdigit()), default=0
    )


async def remove_tree(path: Path) -> None:
    """Remove a directory tree, also what belongs to subordinate ids. Nothing happens where there is none."""
    with contextlib.suppress(RecursionError):  # it goes down level by level, and an image may have any number of them
        shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        await run(sandboxed(["rm", "-rf", "--one-file-system", "--", path]))
