"""The floor: bare QEMU with a busybox initramfs, driven by this file alone.

The guest's init mounts what a process needs, loads the modules of its one virtio-serial port, and runs every line it reads there as a shell
command whose output goes back. A fork is a second QEMU that maps the memory file of a stopped one privately and loads its device state.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
FIRST_COMMAND = b"cat /proc/uptime\n"
_ANSWER_TIMEOUT_S = 60.0
# On a busy host an emulated kernel now and then never finishes measuring its clock; a boot is tried again.
_BOOT_TIMEOUT_S = 20.0
_BOOTS = 4

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs -o size=90% t /tmp
while read -r module; do insmod /modules/$module; done < /modules/order
until command exec 3<>/dev/vport0p1; do :; done 2>/dev/null
while :; do
    if read -r line <&3; then eval "$line" >&3; else sleep 0.01; fi
done
"""


def build_initramfs(modules: Sequence[Path], target: Path) -> None:
    """Busybox, the init above, and `modules` in the order they must be loaded in."""
    tree = target.with_suffix(".tree")
    for directory in ("bin", "dev", "proc", "sys", "tmp", "modules"):
        (tree / directory).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    for module in modules:
        shutil.copy(module, tree / "modules" / module.name)
    (tree / "modules/order").write_text("".join(f"{module.name}\n" for module in modules))
    names = "".join(f"{path.relative_to(tree)}\n" for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), capture_output=True, check=True
    )
    target.write_bytes(archive.stdout)
    shutil.rmtree(tree)


@dataclass(frozen=True, slots=True)
class Setup:
    """What every bare machine of a benchmark starts from. `accelerator` is QEMU's -accel argument, `memory` in MiB."""

    kernel: Path
    initramfs: Path
    accelerator: str
    directory: Path
    memory: int = 256
    kernel_args: tuple[str, ...] = ()


class Bare:
    """A running bare machine. `started` is when its QEMU was started, on the monotonic clock."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: socket.socket, control: socket.socket, started: float
    ) -> None:
        self._process = process
        self._channel = channel
        self._control = control
        self._replies = control.makefile("rb")
        self.started = started
        self.pid = process.pid

    def command(self, line: bytes) -> bytes:
        """Run a shell command in the guest; the first piece of its output."""
        self._channel.sendall(line)
        answer = self._channel.recv(4096)
        if not answer:
            raise EOFError("the bare machine closed its port")
        return answer

    def patience(self, seconds: float) -> None:
        """How long to wait for an answer from now on."""
        self._channel.settimeout(seconds)

    def send(self, data: bytes | memoryview) -> None:
        self._channel.sendall(data)

    def receive(self, size: int) -> None:
        """Read `size` bytes and drop them."""
        buffer = bytearray(1 << 18)
        while size > 0:
            got = self._channel.recv_into(buffer, min(size, len(buffer)))
            if not got:
                raise EOFError("the bare machine closed its port")
            size -= got

    def monitor(self, name: str, **arguments: object) -> object:
        """Carry out a QMP command; its answer."""
        self._control.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while line := self._replies.readline():
            message = json.loads(line)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise RuntimeError(f"QEMU refused {name}: {message['error']}")
        raise EOFError("QEMU closed its monitor")

    def save_devices(self, target: Path) -> None:
        """Stop the machine and write its device state; the memory is in its memory file already."""
        self._replies.readline()
        self.monitor("qmp_capabilities")
        self.monitor("stop")
        self.monitor("xen-save-devices-state", filename=str(target), live=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._replies.close()
        self._control.close()
        self._channel.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_ANSWER_TIMEOUT_S)
    connection.connect(str(path))
    return connection


def _arguments(setup: Setup, channel: int, control: int, memory: str | None) -> list[str]:
    machine = "microvm,suppress-vmdesc=on" + (",memory-backend=m0" if memory else "")
    backend = ["-object", f"memory-backend-file,id=m0,size={setup.memory}M,{memory}"] if memory else []
    command_line = " ".join(("console=ttyS0", "quiet", "reboot=t", "panic=-1", *setup.kernel_args))
    processor = "host" if setup.accelerator == "kvm" else "max"
    return [
        *("qemu-system-x86_64", "-M", machine, "-accel", setup.accelerator, "-cpu", processor),
        *("-m", str(setup.memory), "-smp", "1", *backend, "-global", "migration.send-configuration=off"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "null"),
        *("-kernel", str(setup.kernel), "-initrd", str(setup.initramfs), "-append", command_line),
        *("-chardev", f"socket,id=c,fd={channel},server=on,wait=off"),
        *("-device", "virtio-serial-device", "-device", "virtserialport,chardev=c,name=bench"),
        *("-chardev", f"socket,id=q,fd={control},server=on,wait=off", "-mon", "chardev=q,mode=control"),
    ]


def _launch(setup: Setup, memory: str | None = None, state: Path | None = None) -> Bare:
    paths = [setup.directory / name for name in ("channel", "control")]
    for path in paths:
        path.unlink(missing_ok=True)
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(_listen(path)) for path in paths]
        argv = _arguments(setup, listeners[0].fileno(), listeners[1].fileno(), memory)
        passed = [listener.fileno() for listener in listeners]
        if state:
            file = held.enter_context(state.open("rb"))
            argv += ["-incoming", f"fd:{file.fileno()}"]
            passed.append(file.fileno())
        started = time.monotonic()
        process = subprocess.Popen(argv, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return Bare(process, _connect(paths[0]), _connect(paths[1]), started)


def _answering(setup: Setup, memory: str | None = None, *, boots: int = _BOOTS) -> Bare:
    """A machine started from nothing that has just run its first command."""
    machine = _launch(setup, memory=memory)
    try:
        machine.patience(_BOOT_TIMEOUT_S)
        machine.command(FIRST_COMMAND)
        machine.patience(_ANSWER_TIMEOUT_S)
    except TimeoutError:
        machine.close()
        if boots == 1:
            raise
        return _answering(setup, memory, boots=boots - 1)
    except BaseException:
        machine.close()
        raise
    return machine


@contextlib.contextmanager
def booted(setup: Setup) -> Iterator[Bare]:
    """A machine started from nothing that has just run its first command."""
    machine = _answering(setup)
    try:
        yield machine
    finally:
        machine.close()


@dataclass(frozen=True, slots=True)
class Template:
    """The memory and the device state of a stopped machine, as files."""

    setup: Setup
    memory: Path
    state: Path

    @contextlib.contextmanager
    def forked(self) -> Iterator[Bare]:
        """A machine that goes on where the template stopped."""
        machine = _launch(self.setup, memory=f"mem-path={self.memory},share=off", state=self.state)
        try:
            yield machine
        finally:
            machine.close()


@contextlib.contextmanager
def template(setup: Setup) -> Iterator[Template]:
    """Boot a machine, let it run one command, stop it and keep it as files."""
    memory, state = setup.directory / "template.memory", setup.directory / "template.state"
    made = Template(setup, memory, state)
    with memory.open("wb") as file:
        os.truncate(file.fileno(), setup.memory << 20)
    try:
        machine = _answering(setup, f"mem-path={memory},share=on")
        try:
            machine.save_devices(state)
        finally:
            machine.close()
        yield made
    finally:
        memory.unlink(missing_ok=True)
        state.unlink(missing_ok=True)
