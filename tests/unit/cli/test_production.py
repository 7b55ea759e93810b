"""What `firebrick doctor` says of a host for jailed machines under Firecracker, on hosts made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebrick.cli import production
from firebrick.cli.host import Finding, Verdict
from firebrick.machine.errors import HostError
from firebrick.machine.firecracker.version import Version
from firebrick.node.settings import DriverName, NodeSettings


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


FIRECRACKER = NodeSettings(driver=DriverName.FIRECRACKER)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (NodeSettings(), {"qemu"}),
        (NodeSettings(network=True), {"qemu"}),
        (NodeSettings(jail=True, network=True), {"qemu", "jails", "tap", "network tools"}),
        (FIRECRACKER, {"kvm", "firecracker", "jailer", "jails", "limits"}),
        (NodeSettings(driver=DriverName.FIRECRACKER, jail=False), {"kvm", "firecracker"}),
        (
            NodeSettings(driver=DriverName.FIRECRACKER, jail=False, page_server=True),
            {"kvm", "firecracker", "page server"},
        ),
    ],
)
def test_what_a_node_needs_follows_from_its_settings(settings, needed):
    assert production.required(settings) == needed


def test_a_lack_is_as_bad_as_the_node_needs_it():
    needed = production.required(FIRECRACKER)
    lack = Finding("limits", Verdict.NOTE, "none", "Boot with them.")
    assert production.judge(lack, needed).verdict is Verdict.MISSING
    assert production.judge(lack, production.required(NodeSettings())) is lack
    slow = production.judge(Finding("kvm", Verdict.NOTE, "emulated", "Nothing has to be done."), needed)
    assert (slow.verdict, "Nothing" in slow.advice) == (Verdict.MISSING, False)
    assert production.judge(Finding("qemu", Verdict.MISSING, "no QEMU"), needed).verdict is Verdict.NOTE
    fine = Finding("kvm", Verdict.OK, "fast")
    assert production.judge(fine, needed) is fine
