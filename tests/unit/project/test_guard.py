"""The rules every test is held to are rules."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess

import pytest

from tests import leak
from tests.guard import OutsideError
from tests.leak import Belongings
from tests.skip import is_allowed


@pytest.mark.parametrize(
    "reach_outside",
    [
        lambda: subprocess.run(["true"], check=False),
        lambda: os.system("true"),
        os.fork,
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("localhost", 80),
    ],
    ids=["subprocess", "system", "fork", "connect", "resolve"],
)
def test_a_unit_test_cannot_reach_outside(reach_outside):
    with pytest.raises(OutsideError):
        reach_outside()


async def test_an_event_loop_and_a_pair_of_sockets_are_inside():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"x")
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"x"


def test_an_open_file_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(leak, "_network", frozenset)  # for root it asks a program, which a unit test may not
    before = Belongings.now()
    with (tmp_path / "left").open("w"):
        assert str(tmp_path / "left") in Belongings.now()._without(before)
    assert Belongings.settled_since(before) == ""


def test_a_machines_network_is_anothers_while_its_seat_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(leak, "_SEATS", tmp_path)
    with (tmp_path / "3").open("w") as seat:
        assert not leak._is_of_others("fb3", leak._locked_files())
        fcntl.flock(seat, fcntl.LOCK_EX)
        assert leak._is_of_others("fb3", leak._locked_files())
        assert not leak._is_of_others("fb4", leak._locked_files())
        assert not leak._is_of_others("eth3", leak._locked_files())


def test_a_network_of_a_test_is_that_tests():
    assert leak._is_of_others(f"test-guest-{os.getpid() + 1}-0", frozenset())
    assert not leak._is_of_others(f"test-guest-{os.getpid()}-0", frozenset())


def test_only_named_tests_may_be_skipped(monkeypatch):
    monkeypatch.setenv("FIREBRICK_ALLOW_SKIPS", "tests/machine/*kvm* tests/e2e/test_x.py::test_y")
    assert is_allowed("tests/machine/test_boot.py::test_kvm_boots")
    assert is_allowed("tests/e2e/test_x.py::test_y")
    assert not is_allowed("tests/unit/test_z.py::test_a")
    monkeypatch.delenv("FIREBRICK_ALLOW_SKIPS")
    assert not is_allowed("tests/e2e/test_x.py::test_y")
