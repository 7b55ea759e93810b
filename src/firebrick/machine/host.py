"""What the host has: QEMU and its version, the processor."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import msgspec

from firebrick.machine import atomic
from firebrick.machine.command import PROGRAM
from firebrick.machine.errors import HostError
from firebrick.process import ProcessError, find_program, run

HINT = "Install the package qemu-system-x86."
_FILE = "qemu.json"
_OLDEST = (7, 2)


class _Record(msgspec.Struct, frozen=True):
    key: str
    version: str


async def qemu_version(cache: Path) -> str:
    """The version of the host's QEMU, remembered in `cache` as long as the program is the same file. Raises HostError."""
    program = find_program(PROGRAM)
    if program is None:
        raise HostError(f"cannot start machines: {PROGRAM} is not on this host", hint=HINT)
    facts = os.stat(program)  # noqa: PTH116
    key = f"{program} {facts.st_size} {facts.st_mtime_ns}"
    file = cache / _FILE
    try:
        record = msgspec.json.decode(file.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        record = None
    if record is None or record.key != key:
        record = _Record(key, await _ask(program))
        cache.mkdir(parents=True, exist_ok=True)
        atomic.write(file, msgspec.json.encode(record))
    return record.version


async def _ask(program: str) -> str:
    try:
        text = (await run([program, "--version"], timeout=30)).text
    except ProcessError as error:
        raise HostError(f"cannot ask QEMU for its version: {error}", hint=HINT) from error
    match = re.search(r"version (\d+)\.(\d+)\S*(?: \(([^)]*)\))?", text)
    if match is None:
        raise HostError(f"cannot tell the version of QEMU from {text.strip()!r}", hint=HINT)
    if (int(match[1]), int(match[2])) < _OLDEST:
        raise HostError(
            f"QEMU {match[1]}.{match[2]} is too old: machines need 7.2", hint="Debian 12 and later have it."
        )
    return match[3] or f"{match[1]}.{match[2]}"


@functools.cache
def processor_model() -> str:
    """As the kernel calls it."""
    match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1].strip() if match else "unknown"
