"""The gate bubblewrap comes to before it goes on: two pipes. Over one it says what it has started, at the other it waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from firebrick.machine.errors import HostError
from firebrick.machine.jail import bwrap


@dataclass(slots=True)
class Gate:
    """`wait` and `says` are bwrap's ends, `release` and `said` ours. Ends are None once they are closed."""

    wait: int | None
    release: int | None
    said: int | None
    says: int | None

    @property
    def given(self) -> list[int]:
        """What bwrap needs to inherit."""
        return [fd for fd in (self.wait, self.says) if fd is not None]

    def arguments(self) -> list[str]:
        return ["--block-fd", str(self.wait), "--info-fd", str(self.says)]

    async def first(self) -> int:
        """Once bwrap has inherited its ends: the number of its child, which waits now. Raises HostError when it ends instead."""
        self.close("wait", "says")
        assert self.said is not None
        said, self.said = self.said, None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(said, "rb", buffering=0)
        )
        try:
            text = await reader.readuntil(b"}")
        except asyncio.IncompleteReadError as error:
            raise HostError("bwrap ended before it had made a jail", hint="Its error output says why.") from error
        finally:
            transport.close()
        return bwrap.child_in(text.decode())

    def open(self) -> None:
        """Let it go on."""
        self.close("release")

    def close(self, *names: str) -> None:
        for name in names or ("wait", "release", "said", "says"):
            fd = getattr(self, name)
            setattr(self, name, None)
            if fd is not None:
                os.close(fd)


@contextlib.contextmanager
def made() -> Iterator[Gate]:
    """A gate, closed at the end."""
    wait, release = os.pipe()
    said, says = os.pipe()
    gate = Gate(wait, release, said, says)
    try:
        yield gate
    finally:
        gate.close()
