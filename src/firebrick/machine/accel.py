"""Which accelerator QEMU shall use on this host: KVM where it has been seen to run a kernel, else TCG, QEMU's own emulation.

That /dev/kvm is there and opens says little: there are hosts whose KVM emulates every instruction, or runs only kernels made for it, and there a
machine under KVM hangs without a word. So KVM is asked in three steps, and believed after the third:

    1. /dev/kvm is there and may be opened;
    2. a guest that counts down 50,000 times is as fast as hardware makes it;
    3. the first machine's agent answers in time - if not, this host uses TCG from then on.

The answer is kept for this boot of the host, this kernel and this QEMU, in `acceleration.json` of the cache directory.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from enum import StrEnum
from pathlib import Path

import msgspec

from firebrick.machine import atomic, countdown
from firebrick.machine.owner import boot_id
from firebrick.process import ProcessError, run

KVM = Path("/dev/kvm")
FILE = "acceleration.json"
LIMIT_MS = 5.0
"""Fifty thousand rounds take a fraction of a millisecond on real KVM; 54 ms where each instruction is emulated."""

_PROBE_TIMEOUT_S = 15.0
_ATTEMPTS = 3
_FIRST_BOOT_S = 15.0  # where KVM works a machine takes one or two


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is a sentence for `firebrick doctor`. `proven`: a machine has started this way, so a silent one has another cause."""

    accelerator: Accelerator
    reason: str
    proven: bool = True


class _Record(msgspec.Struct, frozen=True):
    key: str
    choice: Choice


class Acceleration:
    """The choice for one cache directory and one version of QEMU."""

    def __init__(self, cache: Path, qemu_version: str) -> None:
        self._file = cache / FILE
        self._key = f"{boot_id()} {platform.release()} {qemu_version}"
        self._choice: Choice | None = None

    async def choose(self) -> Choice:
        """The accelerator to use. The first call on a host takes up to a third of a second, fifteen if KVM is broken in a new way."""
        if self._choice is None:
            self._choice = self._recall()
        if self._choice is None:
            self._keep(await probe())
        assert self._choice is not None
        return self._choice

    def patience(self, deadline: float) -> float:
        """How long to wait for a machine: a first one under an accelerator that is not proven gets no longer than that takes."""
        proven = self._choice is None or self._choice.proven
        return deadline if proven else min(deadline, _FIRST_BOOT_S)

    def started(self) -> None:
        """A machine's agent has answered: the choice holds."""
        if self._choice is not None and not self._choice.proven:
            self._keep(msgspec.structs.replace(self._choice, proven=True))

    def stayed_silent(self, seconds: float) -> bool:
        """A machine did not come up. True: the choice was not proven and is TCG from now on, so try again."""
        if self._choice is None or self._choice.proven:
            return False
        reason = f"KVM is not used: /dev/kvm passed the countdown, but the first machine did not come up in {seconds:.0f} s under it."
        self._keep(Choice(accelerator=Accelerator.TCG, reason=reason))
        return True

    def _recall(self) -> Choice | None:
        try:
            record = msgspec.json.decode(self._file.read_bytes(), type=_Record)
        except (OSError, msgspec.DecodeError):
            return None
        return record.choice if record.key == self._key else None

    def _keep(self, choice: Choice) -> None:
        self._choice = choice
        self._file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(self._file, msgspec.json.encode(_Record(self._key, choice)))


async def probe() -> Choice:
    """Steps 1 and 2, afresh. A busy host counts slowly now and then, one that emulates always does: the best of some attempts counts."""
    if obstacle := _obstacle():
        return _tcg(obstacle)
    best = math.inf
    for _ in range(_ATTEMPTS):
        try:
            done = await run([sys.executable, "-I", "-S", countdown.__file__], timeout=_PROBE_TIMEOUT_S)
        except ProcessError as error:
            return _tcg(
                f"/dev/kvm opens, but a guest of four instructions does not run under it ({_last_line(str(error))})."
            )
        best = min(best, float(done.text) / 1000)
        if best < LIMIT_MS:
            break
    return judge(best)


def judge(milliseconds: float) -> Choice:
    """What the time of the countdown says."""
    if milliseconds < LIMIT_MS:
        reason = f"KVM is used: {countdown.ROUNDS} rounds of a countdown took {milliseconds:.2f} ms under it."
        return Choice(accelerator=Accelerator.KVM, reason=reason, proven=False)
    return _tcg(
        f"/dev/kvm opens, but {countdown.ROUNDS} rounds of a countdown took {milliseconds:.0f} ms under it (hardware: under {LIMIT_MS:.0f} ms): "
        "this host's KVM emulates each instruction, and ordinary kernels hang under it."
    )


def _obstacle() -> str:
    if platform.machine() != "x86_64":
        return f"this host's processor is {platform.machine()}, and machines are x86_64."
    if not KVM.exists():
        return "/dev/kvm does not exist: the kernel has no KVM, or virtualisation is off in the firmware or not given to this virtual host."
    if not os.access(KVM, os.R_OK | os.W_OK):
        return (
            "this user may not open /dev/kvm (permission denied): add the user to the group that owns it, usually kvm."
        )
    return ""


def _tcg(why: str) -> Choice:
    return Choice(accelerator=Accelerator.TCG, reason=f"KVM is not used, machines are emulated: {why}")


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
