"""The floor under Firecracker: its API, a socket and files, driven by this file alone, with the standard library.

A machine has a directory, in which its files have short relative names, so that any number of machines restored from one snapshot find their own:

    vmlinux initrd root.img     links to what the setup names
    scratch.img                 a copy of the setup's empty disk
    api.sock v.sock             Firecracker's API, and the host's end of the machine's vsock
    console.txt                 what the guest and Firecracker print
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_API_TIMEOUT_S = 60.0
_POLL_S = 0.001
GUEST_CID = 3
KERNEL_ARGS = ("console=ttyS0", "quiet", "reboot=k", "panic=-1", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every bare machine starts from. `scratch` is an ext4 image each machine gets a copy of, `memory` is in MiB; `wrapper` is a command that
    becomes Firecracker, e.g. `ip netns exec NAME`."""

    firecracker: Path
    kernel: Path
    initrd: Path
    root: Path
    scratch: Path
    memory: int = 256
    vcpus: int = 1
    kernel_args: tuple[str, ...] = ()
    track_dirty_pages: bool = False
    wrapper: tuple[str, ...] = ()


class ApiError(Exception):
    """Firecracker refused a request; the message is its own."""


class Bare:
    """A running Firecracker. `started` is when it was started, on the monotonic clock."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, started: float) -> None:
        self._process = process
        self._directory = directory
        self._api: socket.socket | None = None
        self.started = started
        self.pid = process.pid

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """One request to the API; what it answers. Raises ApiError."""
        self._api = self._api or self._dial("api.sock", self.started + _API_TIMEOUT_S)
        content = json.dumps(body).encode() if body else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._api.sendall(head.encode() + content)
        status, answer = _read_response(self._api)
        if status >= 300:
            raise ApiError(f"{method} {path}: {answer.get('fault_message', status)}")
        return answer

    def connect(self, port: int, deadline: float = _API_TIMEOUT_S) -> socket.socket:
        """A connection to what listens on the guest's vsock port `port`, tried for `deadline` seconds. Some releases close the first one
        after a restore although they have accepted it: prove it by what the other end says."""
        until = time.monotonic() + deadline
        while True:
            connection = self._dial("v.sock", until)
            connection.sendall(b"CONNECT %d\n" % port)
            if _read_line(connection).startswith(b"OK "):
                return connection
            connection.close()
            if time.monotonic() > until or self._process.poll() is not None:
                raise TimeoutError(f"nothing answers on vsock port {port}")
            time.sleep(_POLL_S)

    def pause(self) -> None:
        self.call("PATCH", "/vm", state="Paused")

    def resume(self) -> None:
        self.call("PATCH", "/vm", state="Resumed")

    def snapshot(self, target: Path, kind: str = "Full") -> None:
        """Write state, memory and disk of the paused machine into the directory `target`. `kind` is Full or Diff."""
        self.call(
            "PUT",
            "/snapshot/create",
            snapshot_type=kind,
            snapshot_path=str(target / "state"),
            mem_file_path=str(target / "memory"),
        )
        _copy(self._directory / "scratch.img", target / "scratch.img")

    def wait(self, deadline: float) -> int:
        """The status Firecracker ended with. Raises TimeoutExpired."""
        return self._process.wait(deadline)

    def close(self) -> None:
        if self._api is not None:
            self._api.close()
        self._process.kill()
        self._process.wait()

    def _dial(self, name: str, until: float) -> socket.socket:
        """Firecracker makes its sockets some time after it starts, and nothing says when."""
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_API_TIMEOUT_S)
            try:
                with _near(self._directory) as near:
                    connection.connect(f"{near}/{name}")
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(_POLL_S)
            except BaseException:
                connection.close()
                raise
            else:
                return connection


@contextlib.contextmanager
def booted(setup: Setup, directory: Path) -> Iterator[Bare]:
    """A machine started from nothing in the empty directory `directory`."""
    _furnish(setup, directory, setup.scratch)
    with _started(setup, directory) as machine:
        names = ("root", "scratch")
        arguments = " ".join((*KERNEL_ARGS, f"firebrick.disks={','.join(names)}", *setup.kernel_args))
        machine.call(
            "PUT",
            "/machine-config",
            vcpu_count=setup.vcpus,
            mem_size_mib=setup.memory,
            track_dirty_pages=setup.track_dirty_pages,
        )
        machine.call("PUT", "/boot-source", kernel_image_path="vmlinux", initrd_path="initrd", boot_args=arguments)
        for name in names:
            drive = {
                "drive_id": name,
                "path_on_host": f"{name}.img",
                "is_root_device": False,
                "is_read_only": name == "root",
            }
            machine.call("PUT", f"/drives/{name}", **drive)
        machine.call("PUT", "/vsock", guest_cid=GUEST_CID, uds_path="v.sock")
        machine.call("PUT", "/actions", action_type="InstanceStart")
        yield machine


@contextlib.contextmanager
def restored(setup: Setup, snapshot: Path, directory: Path) -> Iterator[Bare]:
    """A machine that goes on, in the empty directory `directory`, where the one in the directory `snapshot` stopped."""
    _furnish(setup, directory, snapshot / "scratch.img")
    with _started(setup, directory) as machine:
        memory = {"backend_type": "File", "backend_path": str(snapshot / "memory")}
        machine.call("PUT", "/snapshot/load", snapshot_path=str(snapshot / "state"), mem_backend=memory, resume_vm=True)
        yield machine


@contextlib.contextmanager
def _started(setup: Setup, directory: Path) -> Iterator[Bare]:
    with (directory / "console.txt").open("wb") as console:
        started = time.monotonic()
        process = subprocess.Popen(
            [*setup.wrapper, setup.firecracker, "--api-sock", "api.sock", "--id", "bare"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )
    machine = Bare(process, directory, started)
    try:
        yield machine
    finally:
        machine.close()


def _furnish(setup: Setup, directory: Path, scratch: Path) -> None:
    files: Mapping[str, Path] = {"vmlinux": setup.kernel, "initrd": setup.initrd, "root.img": setup.root}
    for name, file in files.items():
        (directory / name).symlink_to(file)
    _copy(scratch, directory / "scratch.img")


def _copy(source: Path, target: Path) -> None:
    """A file with its holes."""
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # nothing but a hole is left
                break
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            reader.seek(start)
            writer.seek(start)
            while start < end:
                start += os.sendfile(writer.fileno(), reader.fileno(), start, end - start)


@contextlib.contextmanager
def _near(directory: Path) -> Iterator[str]:
    """A short name for a directory: a socket's path has 108 bytes at most."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _read_line(connection: socket.socket) -> bytes:
    """Byte by byte: what follows the line belongs to whoever uses the connection. Empty where it was closed or reset."""
    line = b""
    with contextlib.suppress(ConnectionResetError):
        while not line.endswith(b"\n") and (byte := connection.recv(1)):
            line += byte
    return line


def _read_response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, content = data.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    lengths = [int(line.split(":")[1]) for line in lines if line.startswith("content-length:")]
    while len(content) < sum(lengths):
        content += _received(connection)
    return int(lines[0].split()[1]), json.loads(content) if content else {}


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError("Firecracker closed its API")
    return data


def make_scratch(target: Path, size_mib: int = 512) -> None:
    """An empty ext4 without a journal, as machines of Firebrick have."""
    with target.open("wb") as file:
        os.truncate(file.fileno(), size_mib << 20)
    program = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin") or "mke2fs"
    subprocess.run([program, "-q", "-F", "-t", "ext4", "-O", "^has_journal", target], check=True)
