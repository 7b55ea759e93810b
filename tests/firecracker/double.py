"""A program in Firecracker's place where there is no KVM: its API, strict as its description and its phases are, with a guest in memory behind its vsock.

    python double.py --as 1.12.1 --api-sock api.sock --id x [--log-path FIFO] [--metrics-path FIFO] ...

Status lines have no reason, refusals are 400 with a sentence, a load that failed ends it, sockets are left behind, a snapshot resets every connection, and the
first connection after a restore is lost after its OK, as measured with the real one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h11

from firebrick.guest.double import GuestDouble
from tests.firecracker.openapi import OpenApi, OpenApiError

PRE = (
    *("/machine-config", "/boot-source", "/cpu-config", "/vsock", "/entropy", "/balloon", "/mmds/config", "/serial"),
    *("/drives/", "/network-interfaces/", "/snapshot/load"),
)
MEMORY_MARK = b"memory of the double"
_PAGE = 4096


class RefusalError(Exception):
    """400, with Firecracker's words."""


class Double:
    def __init__(self, options: argparse.Namespace) -> None:
        self.version: str = options.release
        self.options = options
        self.api = OpenApi(self.version)
        self.state = "Not started"
        self.configured: dict[str, Any] = {}
        self.metadata: Any = {}
        self.guest: GuestDouble | None = None
        self.tracked = False
        self.saved_since_pause = False
        self.drop_next = False
        self.connections: set[asyncio.StreamWriter] = set()
        self.over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.tasks: set[asyncio.Task[None]] = set()

    # --- the process ---

    async def run(self) -> int:
        if Path(self.options.api_sock).exists():
            sys.stderr.write("Failed to open the API socket: Address in use\n")
            return 1
        self.log("INFO", f"Running Firecracker v{self.version}")
        await asyncio.start_unix_server(self.serve_api, self.options.api_sock)
        status = await self.over
        self.log("INFO", f"Firecracker exiting {'successfully' if status == 0 else 'with error'}. exit_code={status}")
        return status

    def end(self, status: int) -> None:
        if not self.over.done():
            self.over.set_result(status)

    def log(self, level: str, text: str) -> None:
        if self.options.log_path:
            with open(self.options.log_path, "a") as file:
                file.write(f"2026-01-01T00:00:00 [{self.options.id}:main:{level}] {text}\n")

    def say(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # --- the API ---

    async def serve_api(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        body = b""
        with contextlib.suppress(ConnectionError):
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    data = await reader.read(1 << 16)
                    if not data:
                        break
                    http.receive_data(data)
                elif isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    assert request is not None
                    status, answer = await self.answer(request.method.decode(), request.target.decode(), body)
                    # h11 may not write the empty reason of a status line; its state has to be told that something was.
                    http.send(h11.Response(status_code=status, headers=[("Content-Length", "0")]))
                    http.send(h11.EndOfMessage())
                    http.start_next_cycle()
                    writer.write(_head(status, answer) + answer)
                    await writer.drain()
                else:
                    break
        writer.close()

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            value = json.loads(body) if body else None
            self.check(method, path, value)
            result = await self.do(method, path, value)
        except RefusalError as refusal:
            self.log("ERROR", f"Received Error. Status code: 400 Bad Request. Message: {refusal}")
            if path == "/snapshot/load":
                asyncio.get_running_loop().call_later(0.01, self.end, 1)
            return 400, json.dumps({"fault_message": str(refusal)}).encode()
        status = 204 if result is None else 200
        self.api.check_answer(method, path, status, result)
        return status, b"" if result is None else json.dumps(result).encode()

    def check(self, method: str, path: str, value: Any) -> None:
        if not self.api.knows(method, path):
            raise RefusalError(f"Invalid request method and/or path: {method} {path.strip('/')}.")
        try:
            self.api.check_request(method, path, value)
        except OpenApiError as error:
            raise RefusalError(f"An error occurred when deserializing the json body of a request: {error}.") from None
        started = self.state != "Not started"
        if method == "PUT" and path.startswith(PRE) and started:
            raise RefusalError("The requested operation is not supported after starting the microVM.")
        late = method == "PATCH" or path == "/snapshot/create"
        if not started and late and path not in ("/mmds", "/machine-config"):
            raise RefusalError("The requested operation is not supported before starting the microVM.")

    async def do(self, method: str, path: str, body: Any) -> Any:
        if method == "GET":
            return self.report(path)
        special = {
            ("PUT", "/actions"): self.act,
            ("PATCH", "/vm"): self.change_state,
            ("PUT", "/snapshot/create"): self.create,
            ("PUT", "/snapshot/load"): self.load,
            ("PUT", "/mmds"): self.put_metadata,
            ("PATCH", "/mmds"): self.patch_metadata,
        }
        if (method, path) in special:
            return await special[method, path](body)
        return self.change(path, body) if method == "PATCH" else self.configure(path, body)

    def report(self, path: str) -> Any:
        reports = {
            "/version": lambda: {"firecracker_version": self.version},
            "/": lambda: {
                "id": self.options.id,
                "app_name": "Firecracker",
                "vmm_version": self.version,
                "state": self.state,
            },
            "/vm/config": lambda: {"drives": [v for k, v in self.configured.items() if k.startswith("/drives/")]},
            "/balloon/statistics": self.balloon_statistics,
            "/mmds": lambda: self.metadata,
        }
        return reports[path]()

    def configure(self, path: str, body: Mapping[str, Any]) -> None:
        named = path.rsplit("/", 1)[1]
        if path.startswith("/drives/"):
            if body["drive_id"] != named:
                raise RefusalError("The id from the path does not match the id from the body!")
            self.open_drive(body)
        if path == "/boot-source":
            for field in ("kernel_image_path", "initrd_path"):
                if not Path(body[field]).exists():
                    raise RefusalError(f"The kernel file cannot be opened: {body[field]}: No such file or directory")
        self.configured[path] = dict(body)

    def open_drive(self, body: Mapping[str, Any]) -> None:
        flags = os.O_RDONLY if body.get("is_read_only") else os.O_RDWR
        try:
            os.close(os.open(body["path_on_host"], flags))
        except OSError as error:
            raise RefusalError(f"Unable to create the block device: {error.strerror}") from error

    def change(self, path: str, body: Mapping[str, Any]) -> None:
        if path not in self.configured:
            raise RefusalError(f"Device {path} was not found.")
        if "path_on_host" in body:
            self.open_drive({**self.configured[path], **body})
        self.configured[path] |= body

    async def put_metadata(self, data: Any) -> None:
        if "/mmds/config" not in self.configured:
            raise RefusalError("The MMDS data store is not initialized.")
        self.metadata = data

    async def patch_metadata(self, data: Any) -> None:
        await self.put_metadata({k: v for k, v in {**self.metadata, **data}.items() if v is not None})

    def balloon_statistics(self) -> Any:
        balloon = self.configured.get("/balloon")
        if balloon is None or not balloon.get("stats_polling_interval_s"):
            raise RefusalError("Balloon device statistics are not enabled.")
        mib = balloon["amount_mib"]
        return {"target_pages": mib * 256, "actual_pages": mib * 256, "target_mib": mib, "actual_mib": mib}

    # --- the machine ---

    async def act(self, body: Mapping[str, Any]) -> None:
        action = body["action_type"]
        if action == "InstanceStart":
            if self.state != "Not started":
                raise RefusalError("The requested operation is not supported after starting the microVM.")
            if "/boot-source" not in self.configured:
                raise RefusalError("Start microvm error: Cannot start microvm without kernel configuration.")
            self.tracked = self.configured.get("/machine-config", {}).get("track_dirty_pages", False)
            await self.start(GuestDouble())
        elif self.state == "Not started":
            raise RefusalError("The requested operation is not supported before starting the microVM.")
        elif action == "FlushMetrics":
            with open(self.options.metrics_path, "a") as file:
                file.write(json.dumps({"utc_timestamp_ms": 1, "block": {"read_count": 7}}) + "\n")
        else:
            self.say("reboot: Restarting system\n")
            asyncio.get_running_loop().call_later(0.01, self.end, 0)

    async def start(self, guest: GuestDouble) -> None:
        self.guest = guest
        vsock = self.configured.get("/vsock")
        if vsock is not None:
            try:
                await asyncio.start_unix_server(self.serve_vsock, vsock["uds_path"])
            except OSError as error:
                raise RefusalError(f"VsockUnixBackend: Error binding to the host-side Unix socket: {error}") from error
        self.state = "Running"
        self.say("the double started\n")
        self._spawn(self.until_off())

    async def until_off(self) -> None:
        assert self.guest is not None
        await self.guest.powered_off.wait()
        self.end(0)

    async def change_state(self, body: Mapping[str, Any]) -> None:
        state = body["state"]
        if state == "Paused":
            self.saved_since_pause = False
        elif self.version in ("1.16.0", "1.16.1") and not self.saved_since_pause and self.state == "Paused":
            for writer in self.connections:  # deaf from now on
                writer.transport.pause_reading()  # type: ignore[attr-defined]
        self.state = {"Paused": "Paused", "Resumed": "Running"}[state]

    async def create(self, body: Mapping[str, Any]) -> None:
        if self.state != "Paused":
            raise RefusalError(
                "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while running"
            )
        diff = body.get("snapshot_type") == "Diff"
        if diff and not self.tracked and self.version.startswith("1.12"):
            raise RefusalError("Diff snapshots are not allowed on uVMs with dirty page tracking disabled.")
        assert self.guest is not None
        self.saved_since_pause = True
        for writer in self.connections:
            writer.transport.abort()
        held = {k: v for k, v in self.configured.items() if k != "/boot-source"}
        state = {"format": self.version.rsplit(".", 1)[0], "configured": held, "guest": self.guest.save().hex()}
        Path(body["snapshot_path"]).write_text(json.dumps(state))
        size = self.configured["/machine-config"]["mem_size_mib"] << 20
        with open(body["mem_file_path"], "wb") as file:
            file.truncate(size)
            for page in range(1 if diff else 8):
                file.seek(page * 2 * _PAGE)
                file.write(MEMORY_MARK.ljust(_PAGE, b"d" if diff else b"f"))

    async def load(self, body: Mapping[str, Any]) -> None:
        if self.configured:
            raise RefusalError(
                "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources."
            )
        try:
            state = json.loads(Path(body["snapshot_path"]).read_text())
        except (OSError, ValueError) as error:
            raise RefusalError(f"Load snapshot error: Failed to get snapshot state from file: {error}") from error
        if state["format"] != self.version.rsplit(".", 1)[0]:
            raise RefusalError("Load snapshot error: Invalid snapshot version")
        memory = body["mem_backend"]
        if memory["backend_type"] == "File" and Path(memory["backend_path"]).stat().st_size == 0:
            raise RefusalError("Load snapshot error: memory")
        self.configured = state["configured"]
        for path, drive in self.configured.items():
            if path.startswith("/drives/"):
                self.open_drive(drive)
        self.tracked = bool(body.get("track_dirty_pages") or body.get("enable_diff_snapshots"))
        self.drop_next = tuple(map(int, self.version.split(".")[:2])) < (1, 16)
        await self.start(GuestDouble.restore(bytes.fromhex(state["guest"])))
        self.state = "Running" if body.get("resume_vm") else "Paused"

    # --- its vsock ---

    async def serve_vsock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            line = await reader.readuntil(b"\n")
            if line.split() != [b"CONNECT", b"1024"]:
                return
            writer.write(b"OK 1073741824\n")
            if self.drop_next:
                self.drop_next = False
                return
            assert self.guest is not None
            stream = self.guest.connect()
            try:
                async with asyncio.TaskGroup() as group:
                    outgoing = group.create_task(self._outgoing(stream, writer))
                    while data := await reader.read(1 << 16):
                        await stream.write(data)
                    outgoing.cancel()
            finally:
                await stream.close()
        except* (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _outgoing(self, stream: Any, writer: asyncio.StreamWriter) -> None:
        while data := await stream.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def _head(status: int, body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} ", "Server: Firecracker API", "Connection: keep-alive"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--as", dest="release", required=True)
    parser.add_argument("--version", action="store_true")
    for name in ("--api-sock", "--id", "--log-path", "--metrics-path", "--level"):
        parser.add_argument(name)
    parser.add_argument("--show-level", action="store_true")
    options = parser.parse_args()
    if options.version:
        sys.stdout.write(f"Firecracker v{options.release}\n")
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def run() -> int:
        return await Double(options).run()

    status = asyncio.run(run())
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
