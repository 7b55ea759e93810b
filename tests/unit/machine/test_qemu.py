"""What is known of a QEMU that ended, and what its specification may not say."""

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.machine import ExitCause, MachineSpec, Qemu, SpecError
from firebrick.machine.qemu.exits import judge_exit
from firebrick.machine.ring import FileRing, Ring
from firebrick.machine.spec import Drive


@pytest.mark.parametrize(
    ("returncode", "reason", "killed", "console", "complaints", "cause", "message"),
    [
        (0, "guest-shutdown", False, "", "", ExitCause.POWEROFF, "powered off"),
        (0, "guest-reset", False, "", "", ExitCause.REBOOT, "rebooted"),
        (
            0,
            "guest-reset",
            False,
            "[ 1.0] Kernel panic - not syncing: No init found.\n[ 1.1] ...",
            "",
            ExitCause.PANIC,
            "No init found.",
        ),
        (-signal.SIGKILL, "", True, "", "", ExitCause.KILLED, "killed"),
        (-signal.SIGKILL, "", False, "", "", ExitCause.OUT_OF_MEMORY, "want of memory"),
        (1, "", False, "", "one\nqemu: no such device", ExitCause.CRASHED, "with status 1: qemu: no such device"),
        (-signal.SIGSEGV, "", False, "", "", ExitCause.CRASHED, "by SIGSEGV"),
        (0, "guest-shutdown", True, "", "", ExitCause.POWEROFF, "powered off"),
    ],
)
def test_how_it_ended(returncode, reason, killed, console, complaints, cause, message):
    end = judge_exit(returncode, reason, killed=killed, console=console, complaints=complaints)
    assert end.cause is cause
    assert message in end.message


async def test_a_missing_file_is_named_before_anything_starts(tmp_path):
    spec = MachineSpec(kernel=tmp_path / "no-kernel", initrd=tmp_path)
    with pytest.raises(SpecError, match="no-kernel does not exist"):
        async with Qemu(tmp_path).boot(spec, tmp_path):
            pass


async def test_two_drives_of_one_name_are_refused(tmp_path):
    drives = (Drive(name="root", path=tmp_path),)
    spec = MachineSpec(kernel=tmp_path, initrd=tmp_path, drives=drives)
    with pytest.raises(SpecError, match="same name"):
        async with Qemu(tmp_path).boot(spec, tmp_path):
            pass


def test_specifications_are_checked_when_they_are_made():
    with pytest.raises(SpecError, match="memory"):
        MachineSpec(kernel=Path("/k"), initrd=Path("/i"), memory_mib=1)


def test_a_ring_keeps_the_end():
    ring = Ring(10)
    for i in range(100):
        ring.write(f"{i:03}".encode())
    assert ring.text() == "6097098099"
    ring.write(b"x" * 1000)
    assert ring.text() == "x" * 10


def test_a_ring_survives_what_is_no_text():
    ring = Ring(10)
    ring.write(b"\xff\xfeok\r\n")
    assert ring.text() == "��ok\n"


def test_the_end_of_what_another_process_started_is_told_as_far_as_it_is_known():
    end = judge_exit(None, "", killed=False, console="", complaints="qemu: no memory")
    assert end.cause is ExitCause.CRASHED
    assert "not known" in end.message
    assert "no memory" in end.message
    assert judge_exit(None, "guest-shutdown", killed=False, console="", complaints="").cause is ExitCause.POWEROFF
    assert judge_exit(None, "", killed=True, console="", complaints="").cause is ExitCause.KILLED


@given(st.lists(st.binary(max_size=30), max_size=20), st.data())
def test_a_ring_in_a_file_is_one_whoever_writes_it(tmp_path_factory, pieces, data):
    path = tmp_path_factory.mktemp("r") / "ring"
    cut = data.draw(st.integers(0, len(pieces)))
    for part in (pieces[:cut], pieces[cut:]):
        ring = FileRing(path, 16)
        for piece in part:
            ring.write(piece)
    expected = Ring(16)
    for piece in pieces:
        expected.write(piece)
    assert FileRing(path, 16).text() == expected.text()
