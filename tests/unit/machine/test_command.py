"""The command line of QEMU."""

import json
from pathlib import Path

import pytest

from firebrick.machine import Accelerator, Drive, MachineSpec, Network
from firebrick.machine.command import Plan, command, kernel_command_line


def spec(**changes) -> MachineSpec:
    return MachineSpec(**{"kernel": Path("/k"), "initrd": Path("/i"), "root": Path("/r,oot.squashfs")} | changes)


def plan(of: MachineSpec, **changes) -> Plan:
    given = {
        "spec": of,
        "machine": "abc",
        "accelerator": Accelerator.TCG,
        "memory": Path("/dev/zero"),
        "layers": [Path("/d/scratch.0.raw"), Path("/d/scratch.1.qcow2"), Path("/d/scratch.2.qcow2")],
        "agent_fd": 11,
        "monitor_fd": 12,
    }
    return Plan(**given | changes)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def objects(argv: list[str], option: str) -> list[dict]:
    return [json.loads(value) for value in values(argv, option)]


def test_a_plain_machine_is_a_microvm_with_nothing_it_was_not_given():
    argv = command(plan(spec()))
    assert argv[0] == "qemu-system-x86_64"
    assert values(argv, "-M") == ["microvm,memory-backend=m0,suppress-vmdesc=on"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert values(argv, "-netdev") == []
    assert values(argv, "-name") == ["firebrick-abc"]
    assert values(argv, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


def test_memory_is_always_private():
    [backend] = objects(command(plan(spec(memory_mib=300))), "-object")
    assert backend["share"] is False
    assert backend["size"] == 300 << 20
    assert backend["mem-path"] == "/dev/zero"


def test_only_the_last_layer_of_the_scratch_disk_can_be_written():
    nodes = {node["node-name"]: node for node in objects(command(plan(spec())), "-blockdev")}
    assert [nodes[f"scratch-{i}"]["read-only"] for i in range(3)] == [True, True, False]
    assert "backing" not in nodes["scratch-0"]
    assert nodes["scratch-2"]["backing"] == "scratch-1"
    assert nodes["drive-root"]["read-only"] is True
    assert nodes["drive-root"]["file"]["filename"] == "/r,oot.squashfs"


def test_disks_are_known_by_their_serial_in_a_fixed_order():
    drives = (Drive(name="data", path=Path("/x.qcow2"), format="qcow2", read_only=False),)
    argv = command(plan(spec(drives=drives)))
    devices = [d for d in map(json.loads, values(argv, "-device")) if d["driver"] == "virtio-blk-device"]
    assert [(d["serial"], d["drive"]) for d in devices] == [
        ("root", "drive-root"),
        ("scratch", "scratch-2"),
        ("data", "drive-data"),
    ]
    data = next(n for n in objects(argv, "-blockdev") if n["node-name"] == "drive-data")
    assert (data["driver"], data["read-only"]) == ("qcow2", False)


def test_a_fork_needs_neither_kernel_nor_initramfs():
    argv = command(plan(spec(), state_fd=13, memory=Path("/d/memory")))
    assert values(argv, "-incoming") == ["fd:13"]
    assert "-kernel" not in argv
    assert "-append" not in argv


def test_a_fork_has_the_devices_of_its_source():
    source, fork = command(plan(spec())), command(plan(spec(), state_fd=13))
    for option in ("-device", "-M", "-cpu", "-smp", "-m", "-blockdev"):
        assert values(source, option) == values(fork, option)


def test_nested_virtualisation_takes_an_emulated_amd():
    assert values(command(plan(spec(nested=True))), "-cpu") == ["EPYC,+svm,+npt"]
    assert values(command(plan(spec(nested=True), accelerator=Accelerator.KVM)), "-cpu") == ["host"]


def test_under_kvm_the_processor_is_the_hosts():
    argv = command(plan(spec(), accelerator=Accelerator.KVM, tsc_khz=1000))
    assert values(argv, "-accel") == ["kvm"]
    assert values(argv, "-cpu") == ["host"]
    assert "tsc" not in values(argv, "-append")[0]


def test_an_emulated_kernel_is_told_the_clock_it_cannot_measure():
    line = kernel_command_line(spec(kernel_args=("mine=1",)), Accelerator.TCG, 2_600_000)
    assert {"tsc_early_khz=2600000", "tsc=reliable"} <= set(line.split())
    assert line.split()[-1] == "mine=1"


def test_a_kernel_without_acpi_gets_its_devices_on_its_command_line():
    assert values(command(plan(spec(kernel_args=("acpi=off",)))), "-M")[0].endswith(",acpi=off")


@pytest.mark.parametrize(
    ("network", "backends"),
    [
        (Network.NONE, []),
        (Network.USER, [{"type": "user", "id": "net"}]),
        (Network.NAMESPACE, [{"type": "tap", "fd": "14", "vhost": False, "id": "net"}]),
    ],
)
def test_the_network_is_what_was_asked_for(network, backends):
    argv = command(plan(spec(network=network), tap_fd=14))
    assert [json.loads(value) for value in values(argv, "-netdev")] == backends
    assert sum("52:54:00:12:34:56" in value for value in values(argv, "-device")) == len(backends)
