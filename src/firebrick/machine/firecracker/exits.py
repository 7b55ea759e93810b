"""How a machine under Firecracker ended, from all that is known of it. Pure.

The guest decides what is on the console, Firecracker what is in its log and its status. A guest has one way to end by itself, the reset of its
keyboard controller, after a reboot as after a panic: which of them it was only the console tells."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

from firebrick.machine.driver import Exit, ExitCause

_PANIC: Final = "Kernel panic - not syncing"
_EXIT_CODE: Final = re.compile(r"exit_code=(\d{1,3})\b")
_SIGNALLED: Final = 128

_STATUSES: Final = {
    148: (ExitCause.SECCOMP, "Firecracker made a system call its seccomp filter does not allow, and ended"),
    149: (
        ExitCause.OUT_OF_MEMORY,
        "Firecracker touched memory the host did not have (SIGBUS): the pool of huge pages is empty, or a mapped file was cut short",
    ),
    150: (ExitCause.CRASHED, "Firecracker crashed (SIGSEGV)"),
    151: (ExitCause.FILE_LIMIT, "Firecracker wrote more into a file than its limit allows (SIGXFSZ)"),
    152: (ExitCause.BAD_CONFIGURATION, "Firecracker refused its configuration"),
    153: (ExitCause.BAD_CONFIGURATION, "Firecracker refused its arguments"),
    154: (ExitCause.CRASHED, "Firecracker used up its limit of processor time (SIGXCPU)"),
    156: (ExitCause.CRASHED, "Firecracker was hung up on (SIGHUP)"),
    157: (ExitCause.CRASHED, "Firecracker met an instruction the host's processor does not have (SIGILL)"),
}

_PLAIN: Final = {
    0: (ExitCause.REBOOT, "the guest rebooted, which ends a machine"),
    -signal.SIGKILL: (
        ExitCause.OUT_OF_MEMORY,
        "something on the host killed Firecracker, most likely the kernel for want of memory",
    ),
    -signal.SIGTERM: (ExitCause.KILLED, "something on the host told Firecracker to end"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """`status` is that of the process, negative for a signal; None where nobody could ask. `killed`: we have ended it ourselves;
    `failure`: and why, where that was no wish of its user. `starved`: the kernel killed in its control group for want of memory."""

    status: int | None
    killed: bool = False
    failure: str = ""
    starved: bool = False
    console: str = ""
    log: str = ""
    complaints: str = ""


def judge(evidence: Evidence) -> Exit:
    status = _status(evidence)
    panic = next((line for line in evidence.console.splitlines() if _PANIC in line), "")
    if panic:
        return Exit(ExitCause.PANIC, f"the guest's kernel panicked: {panic.split(_PANIC)[1].lstrip(': ')}")
    wished = _wished(evidence, status)
    if wished is not None:
        return wished
    if status in _STATUSES:
        cause, message = _STATUSES[status]
        return Exit(cause, message + _said(evidence))
    if status in _PLAIN:
        return Exit(*_PLAIN[status])
    return Exit(ExitCause.CRASHED, f"Firecracker ended {_in_words(status)}{_said(evidence)}")


def _wished(evidence: Evidence, status: int | None) -> Exit | None:
    """What who started it has to do with it."""
    if evidence.failure:
        return Exit(ExitCause.CRASHED, f"it was ended: {evidence.failure}")
    if evidence.starved and status in (None, -signal.SIGKILL):
        return Exit(
            ExitCause.OUT_OF_MEMORY, "the kernel killed Firecracker: the machine has used up what memory it may have"
        )
    if evidence.killed and (status is None or status in (-signal.SIGKILL, -signal.SIGTERM)):
        return Exit(ExitCause.KILLED, "it was killed")
    return None


def _status(evidence: Evidence) -> int | None:
    """A shell's way of telling signals is undone; what nobody could ask for the log may have."""
    status = evidence.status
    if status is None:
        logged = _EXIT_CODE.findall(evidence.log)
        status = int(logged[-1]) if logged else None
    if status in (_SIGNALLED + signal.SIGTERM, _SIGNALLED + signal.SIGKILL):
        return _SIGNALLED - status
    return status


def _in_words(status: int | None) -> str:
    if status is None:
        return "in a way that is not known"
    if status < 0:
        return f"by signal {-status} ({signal.strsignal(-status)})"
    return f"with status {status}"


def _said(evidence: Evidence) -> str:
    """Its last complaint, or what its log has of an error."""
    complaints = evidence.complaints.strip().splitlines()
    errors = [line for line in evidence.log.splitlines() if "rror" in line and "exit_code=0" not in line]
    last = (complaints or errors or [""])[-1]
    return f": {last[-400:]}" if last else ""
