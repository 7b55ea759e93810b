"""The command line of QEMU, made from a plan by pure functions.

The machine type is `microvm`: no firmware to speak of, no PCI, a handful of devices, and so the quickest to start. A fork must be given the very
devices its snapshot had, in the same order: nothing here depends on the host but the accelerator, and that is compared before a restore.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firebrick.machine.accel import Accelerator
from firebrick.machine.network.addresses import GUEST_MAC
from firebrick.machine.owner import process_name
from firebrick.machine.spec import Drive, MachineSpec, Network

PROGRAM = "qemu-system-x86_64"
AGENT_PORT = "firebrick.agent"
MACHINE_TYPE = "microvm"
MEMORY_ID = "m0"

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_KERNEL_ARGS = ("console=ttyS0", "quiet", "reboot=t", "panic=-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One start of QEMU. `layers` are those of the scratch disk, the empty file system first; the descriptors are inherited;
    `state_fd` is the device state to start from, None to start from nothing; `tap_fd` is an open tap, for
    a machine in a network namespace; `stopped`: processors stand still when the state is loaded."""

    spec: MachineSpec
    machine: str
    accelerator: Accelerator
    memory: Path
    layers: Sequence[Path]
    agent_fd: int
    monitor_fd: int
    state_fd: int | None = None
    tap_fd: int | None = None
    tsc_khz: int | None = None
    stopped: bool = False


def processor(spec: MachineSpec, accelerator: Accelerator) -> str:
    """QEMU's model. Emulated, a guest that is to run machines itself needs one that is an AMD: TCG knows SVM, and not Intel's VMX."""
    if accelerator is Accelerator.KVM:
        return "host"
    return "EPYC,+svm,+npt" if spec.nested else "max"


def command(plan: Plan) -> list[str]:
    """The arguments, program first."""
    return [PROGRAM, *_machine(plan), *_start(plan), *_channels(plan), *_disks(plan), *_network(plan)]


def kernel_command_line(spec: MachineSpec, accelerator: Accelerator, tsc_khz: int | None) -> str:
    # An emulated guest reads the host's counter on all its processors, which the kernel does not believe of an AMD with more than one: it would
    # count its own ticks instead, and no time would be shorter than 4 ms.
    clock = (f"tsc_early_khz={tsc_khz}", "tsc=reliable") if accelerator is Accelerator.TCG and tsc_khz else ()
    return " ".join((*_KERNEL_ARGS, *clock, *spec.kernel_args))


def _machine(plan: Plan) -> list[str]:
    spec = plan.spec
    thread = ",thread=multi" if plan.accelerator is Accelerator.TCG else ""
    backend = {
        "qom-type": "memory-backend-file",
        "id": MEMORY_ID,
        "size": spec.memory_mib << 20,
        "mem-path": str(plan.memory),
        "share": False,
    }
    return [
        *("-name", process_name(plan.machine)),
        *("-M", f"{MACHINE_TYPE},memory-backend={MEMORY_ID},suppress-vmdesc=on{_without_acpi(spec)}"),
        *("-accel", plan.accelerator + thread),
        *("-cpu", processor(spec, plan.accelerator)),
        *("-m", str(spec.memory_mib)),
        *("-smp", str(spec.vcpus)),
        *("-object", json.dumps(backend)),
        # The state a snapshot holds is that of the devices alone; without this QEMU would expect its own settings at its head.
        *("-global", "migration.send-configuration=off"),
        *("-sandbox", _SANDBOX),
        *("-display", "none"),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
    ]


def _without_acpi(spec: MachineSpec) -> str:
    """A kernel that is told to do without ACPI finds its devices on its command line, where QEMU then writes them."""
    return ",acpi=off" if "acpi=off" in spec.kernel_args else ""


def _start(plan: Plan) -> list[str]:
    if plan.state_fd is not None:  # kernel and initramfs are in the memory already
        return ["-incoming", f"fd:{plan.state_fd}", *(["-S"] if plan.stopped else [])]
    spec = plan.spec
    return [
        *("-kernel", str(spec.kernel)),
        *("-initrd", str(spec.initrd)),
        *("-append", kernel_command_line(spec, plan.accelerator, plan.tsc_khz)),
    ]


def _channels(plan: Plan) -> list[str]:
    """The console goes to standard output; agent and monitor are sockets that listen already, so nobody has to wait for them."""
    return [
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={plan.agent_fd},server=on,wait=off"),
        *_device("virtio-serial"),
        *("-device", json.dumps({"driver": "virtserialport", "chardev": "agent", "name": AGENT_PORT})),
        *(
            "-chardev",
            f"socket,id=monitor,fd={plan.monitor_fd},server=on,wait=off",
            "-mon",
            "chardev=monitor,mode=control",
        ),
    ]


def _device(kind: str, **properties: Any) -> list[str]:
    return ["-device", json.dumps({"driver": f"{kind}-device", **properties})]


def _disks(plan: Plan) -> Iterator[str]:
    spec = plan.spec
    if spec.root is not None:
        yield from _disk(Drive(name="root", path=spec.root))
    yield from _blockdevs(plan.layers)
    yield from _device("virtio-blk", drive=scratch_node(len(plan.layers) - 1), serial="scratch")
    for drive in spec.drives:
        yield from _disk(drive)


def _disk(drive: Drive) -> Iterator[str]:
    node = f"drive-{drive.name}"
    yield from (
        "-blockdev",
        json.dumps({**file_node(drive.path, drive.format, read_only=drive.read_only), "node-name": node}),
    )
    yield from _device("virtio-blk", drive=node, serial=drive.name)


def _blockdevs(layers: Sequence[Path]) -> Iterator[str]:
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        node = file_node(layer, "raw" if index == 0 else "qcow2", read_only=not last)
        if index:
            node["backing"] = scratch_node(index - 1)
        yield from ("-blockdev", json.dumps({**node, "node-name": scratch_node(index)}))


def scratch_node(index: int) -> str:
    """What QEMU calls the layer with this number."""
    return f"scratch-{index}"


def file_node(path: Path, image_format: str, *, read_only: bool) -> dict[str, Any]:
    """A disk image as QEMU's block layer takes it. The guest's flushes stop at the host's memory: a scratch disk need not outlive the host's power.

    The file takes over from the image whether it is read-only: so a layer that is sealed while the machine runs is held open to be read alone."""
    cache = {"direct": False, "no-flush": True}
    return {
        "driver": image_format,
        "read-only": read_only,
        "cache": cache,
        "file": {"driver": "file", "filename": str(path), "cache": cache},
    }


def _network(plan: Plan) -> list[str]:
    if plan.spec.network is Network.NONE:
        return []
    backend: dict[str, Any] = {"type": "user"}
    if plan.spec.network is Network.NAMESPACE:
        backend = {"type": "tap", "fd": str(plan.tap_fd), "vhost": False}
    return [
        "-netdev",
        json.dumps({**backend, "id": "net"}),
        *_device("virtio-net", netdev="net", mac=GUEST_MAC),
    ]
