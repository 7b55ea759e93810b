"""A small client of QEMU's machine protocol: JSON objects, one a line, commands answered in order, events in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from firebrick.machine.errors import MachineError, MachineGoneError

_LINE_LIMIT: Final = 4 << 20
DEADLINE_S: Final = 60.0
"""For QEMU's answer to a command. It answers within milliseconds; where the host is busy, and emulated itself, some seconds."""

_LONG: Final = {"xen-save-devices-state": 10.0}
"""How many times as long commands take that write a file."""

Event = Mapping[str, Any]


class QmpError(MachineError):
    """QEMU refused a command. `kind` is QEMU's word for the reason."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class QmpSilentError(MachineError):
    """QEMU runs, and does not answer."""


class Qmp:
    """A conversation with one QEMU.

    It is opened by the first command and by nothing else: QEMU takes commands before it has sent its greeting, so opening costs no round trip,
    and a machine nobody pauses never pays for it. Commands of several tasks are answered in the order they were sent.
    """

    def __init__(self, sock: socket.socket, on_event: Callable[[Event], None], *, deadline: float = DEADLINE_S) -> None:
        """`sock` is connected to QEMU's monitor, and this object's from now on. `deadline` is for the answer to a command, in seconds."""
        self._sock = sock
        self._on_event = on_event
        self._deadline = deadline
        self._waiting: list[asyncio.Future[Any]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its answer. Underscores in argument names become hyphens. Raises QmpError, MachineGoneError,
        and QmpSilentError where the answer does not come in time; it is not taken for that of a later command then."""
        await self.open()
        return await self._send(command, {k.replace("_", "-"): v for k, v in arguments.items()})

    async def open(self) -> None:
        """Begin to listen to events. Idempotent."""
        async with self._opening:
            if self._writer is not None:
                return
            reader, self._writer = await asyncio.open_unix_connection(sock=self._sock, limit=_LINE_LIMIT)
            self._reading = asyncio.create_task(self._read(reader), name="qmp-read")
        await self._send("qmp_capabilities", {})

    async def closed(self) -> None:
        """Wait until QEMU has said its last word."""
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def close(self) -> None:
        """End the conversation. Idempotent; safe when it was never opened."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        if self._writer is None:
            self._sock.close()
            return
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send(self, command: str, arguments: Mapping[str, Any]) -> Any:
        assert self._writer is not None
        if self._reading is None or self._reading.done():
            raise MachineGoneError(f"cannot ask the machine to {command}: it has ended")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        reply = await self._answered(command, answer)
        if "error" in reply:
            error = reply["error"] if isinstance(reply["error"], dict) else {}
            raise QmpError(f"QEMU refused {command}: {error.get('desc')}", kind=str(error.get("class")))
        return reply["return"]

    async def _answered(self, command: str, answer: asyncio.Future[Any]) -> Any:
        deadline = self._deadline * _LONG.get(command, 1.0)
        try:
            async with asyncio.timeout(deadline):
                return await answer
        except TimeoutError as error:
            raise QmpSilentError(
                f"QEMU did not answer {command} within {deadline:g} s", hint="Kill the machine: its QEMU is stuck."
            ) from error

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            # Lines without end, and what is no JSON: a QEMU whose guest has taken it over says what it likes, and is not heard any more.
            with contextlib.suppress(OSError, ValueError, RecursionError):
                while line := await reader.readline():
                    if isinstance(message := json.loads(line), dict):
                        self._take(message)
        finally:
            for answer in self._waiting:
                if not answer.done():
                    answer.set_exception(MachineGoneError("the machine ended before it answered"))
            self._waiting.clear()

    def _take(self, message: Mapping[str, Any]) -> None:
        if "event" in message:
            self._on_event(message)
        elif ("return" in message or "error" in message) and self._waiting:
            answer = self._waiting.pop(0)
            if not answer.done():  # its task was cancelled: the answer still has its place in the order
                answer.set_result(message)
