"""The API of one Firecracker: JSON over HTTP/1.1 over a unix socket.

Firecracker answers one request after the other, on one thread. So there is one connection, and calls of several tasks take turns. A call that
was given up in the middle takes the connection with it: what comes on it later would answer the wrong question."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h11
import msgspec

from firebrick.machine.errors import MachineError, MachineGoneError
from firebrick.machine.firecracker.config import Request
from firebrick.machine.firecracker.unix import connected

CALL_S: Final = 30.0
SNAPSHOT_S: Final = 600.0
_READ: Final = 1 << 16
_MOST_HEAD: Final = 16 << 10
_MOST_BODY: Final = 4 << 20
_MOST_FAULT: Final = 2000


class FirecrackerError(MachineError):
    """Firecracker refused a request. `status` is HTTP's, `fault` its own words."""

    def __init__(self, message: str, *, status: int, fault: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.fault = fault


class FirecrackerTimeoutError(MachineError):
    """Firecracker did not answer a request in time."""


class Api:
    """The API behind `socket`. Connected by the first call, and again by the one after a call that was given up."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._turn = asyncio.Lock()
        self._wire: _Wire | None = None

    @property
    def is_there(self) -> bool:
        """Whether its socket has been made; it may not listen yet."""
        return self._socket.exists()

    async def connect(self) -> None:
        """Raises OSError where nobody listens yet."""
        self._wire = self._wire or await _Wire.open(self._socket)

    async def get(self, path: str) -> Any:
        return await self.call("GET", path)

    async def put(self, path: str, body: Mapping[str, Any], *, deadline: float = CALL_S) -> Any:
        return await self.call("PUT", path, body, deadline=deadline)

    async def patch(self, path: str, body: Mapping[str, Any], *, deadline: float = CALL_S) -> Any:
        return await self.call("PATCH", path, body, deadline=deadline)

    async def send(self, request: Request) -> Any:
        deadline = SNAPSHOT_S if request.path.startswith("/snapshot/") else CALL_S
        return await self.call(request.method, request.path, request.body, deadline=deadline)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, deadline: float = CALL_S
    ) -> Any:
        """Make a request and return the body of its answer, None where it has none. `deadline` is in seconds, from when its turn has come.

        Raises FirecrackerError when it is refused, MachineGoneError when Firecracker has ended, FirecrackerTimeoutError."""
        async with self._turn:
            try:
                async with asyncio.timeout(deadline):
                    status, answer = await self._exchange(method, path, body)
            except TimeoutError as error:
                raise FirecrackerTimeoutError(
                    f"Firecracker did not answer {method} {path} within {deadline:g} s",
                    hint="It serves one request at a time: a snapshot may be under way, or the host be out of memory.",
                ) from error
            except (OSError, EOFError) as error:
                raise MachineGoneError(
                    f"cannot {method} {path}: Firecracker has ended", hint="`console()` has the guest's last output."
                ) from error
        return _result(method, path, status, answer)

    async def close(self) -> None:
        """Idempotent."""
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await wire.close()

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        whole = False
        try:
            if self._wire is None:
                self._wire = await _Wire.open(self._socket)
            answer = await self._wire.exchange(method, path, b"" if body is None else msgspec.json.encode(body))
            whole = True
        except (
            h11.ProtocolError
        ) as error:  # a local one: it said that it will close the connection, and was asked again
            raise EOFError(f"it answered with something that is not HTTP: {error}") from error
        finally:
            if not whole:
                await self.close()
        return answer


class _Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)

    @classmethod
    async def open(cls, path: Path) -> _Wire:
        return cls(*await asyncio.open_unix_connection(sock=connected(path)))

    async def exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Raises OSError and EOFError when the connection is lost, RemoteProtocolError."""
        head = [("Host", "localhost"), ("Accept", "application/json")]
        if body:
            head += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        parts: list[h11.Event] = [h11.Request(method=method, target=path, headers=head)]
        parts += [h11.Data(data=body)] if body else []
        self._writer.write(b"".join(self._http.send(part) or b"" for part in (*parts, h11.EndOfMessage())))
        answer = await self._answer()
        self._http.start_next_cycle()
        return answer

    async def _answer(self) -> tuple[int, bytes]:
        status, body = 0, bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(_READ)
                if not data and not self._http.trailing_data[0]:
                    raise EOFError("it closed the connection")
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MOST_BODY:
                    raise EOFError(f"it answered with more than {_MOST_BODY} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(body)

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _result(method: str, path: str, status: int, answer: bytes) -> Any:
    try:
        value = msgspec.json.decode(answer) if answer.strip() else None
    except (msgspec.DecodeError, RecursionError):
        value = answer.decode(errors="replace")
    if status < 300:
        return value
    fault = str(value.get("fault_message", "")) if isinstance(value, dict) else str(value or "")
    fault = fault[:_MOST_FAULT]
    raise FirecrackerError(f"Firecracker refused {method} {path}: {fault or status}", status=status, fault=fault)
