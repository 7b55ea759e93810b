"""How a machine under QEMU ended, from all that is known of it. Pure."""

from __future__ import annotations

import signal
from typing import Final

from firebrick.machine.driver import Exit, ExitCause

_PANIC: Final = "Kernel panic - not syncing"


def judge_exit(
    returncode: int | None, reason: str, *, killed: bool, console: str, complaints: str, starved: bool = False
) -> Exit:
    """The status is None where QEMU was not a child of this process; `reason` is QEMU's own word; `starved`: the kernel killed in its control
    group for want of memory."""
    if starved:
        return Exit(ExitCause.OUT_OF_MEMORY, "the kernel killed QEMU, which wanted more memory than it may have")
    by_guest = _by_guest(reason, console)
    if by_guest is not None:
        return by_guest
    if killed:
        return Exit(ExitCause.KILLED, "it was killed")
    if returncode == -signal.SIGKILL:
        return Exit(
            ExitCause.OUT_OF_MEMORY, "something on the host killed QEMU, most likely the kernel for want of memory"
        )
    said = f": {complaints.splitlines()[-1]}" if complaints else ""
    return Exit(ExitCause.CRASHED, f"QEMU ended {_status(returncode)}{said}")


def _by_guest(reason: str, console: str) -> Exit | None:
    panic = next((line for line in console.splitlines() if _PANIC in line), "")
    if panic:
        return Exit(ExitCause.PANIC, f"the guest's kernel panicked: {panic.split(_PANIC)[1].lstrip(': ')}")
    if reason == "guest-shutdown":
        return Exit(ExitCause.POWEROFF, "the guest powered off")
    if reason == "guest-reset":
        return Exit(ExitCause.REBOOT, "the guest rebooted, which ends a machine")
    return None


def _status(returncode: int | None) -> str:
    if returncode is None:
        return "with a status that is not known, as another process had started it"
    return f"by {signal.Signals(-returncode).name}" if returncode < 0 else f"with status {returncode}"
