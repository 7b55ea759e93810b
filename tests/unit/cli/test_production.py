"""What `firebrick doctor` says of a host for jailed machines under Firecracker, on hosts made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.cli import production
from firebrick.cli.host import Verdict
from firebrick.machine.errors import HostError
from firebrick.machine.firecracker.version import Version


@pytest.fixture
def system(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(production, "_SYSTEM", tmp_path / "sys")
    monkeypatch.setattr(production, "_PROC", tmp_path / "proc")
    put(tmp_path / "proc/swaps", "Filename Type Size Used Priority\n")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_need_every_controller(system):
    assert "no cgroup version 2" in production.controllers().found
    put(system / "sys/fs/cgroup/cgroup.controllers", "cpu memory pids")
    assert production.controllers().found == "cgroup version 2 without io"
    put(system / "sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids")
    assert production.controllers().verdict is Verdict.OK


def test_what_lets_machines_learn_of_each_other_is_named(system):
    assert production.neighbours().verdict is Verdict.OK
    put(system / "sys/devices/system/cpu/smt/active", "1\n")
    put(system / "sys/kernel/mm/ksm/run", "0\n")
    put(system / "proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    found = production.neighbours()
    assert found.verdict is Verdict.NOTE
    assert [word in found.found for word in ("SMT", "swap", "KSM")] == [True, True, False]


async def test_a_host_without_firecracker_is_told_what_to_do(monkeypatch):
    async def version(self):
        raise HostError("there is no program firecracker", hint="Install it.")

    monkeypatch.setattr(production.Firecracker, "version", version)
    [found] = await production.firecracker()
    assert (found.verdict, found.advice) == (Verdict.NOTE, "Install it.")


async def test_a_jailer_belongs_to_it(monkeypatch):
    async def version(self):
        return Version.parse("1.12.1")

    monkeypatch.setattr(production.Firecracker, "version", version)
    monkeypatch.setattr(production, "find_program", lambda name: None if "jailer" in name else f"/usr/bin/{name}")
    vmm, jailer = await production.firecracker()
    assert "1.12.1" in vmm.found
    assert jailer.verdict is Verdict.NOTE


def test_jails_need_root_and_bubblewrap(monkeypatch):
    monkeypatch.setattr(production.os, "geteuid", lambda: 1000)
    assert "only root" in production.jails().found
    monkeypatch.setattr(production.os, "geteuid", lambda: 0)
    monkeypatch.setattr(production, "find_program", lambda name: None)
    assert production.jails().advice == "apt-get install bubblewrap"
