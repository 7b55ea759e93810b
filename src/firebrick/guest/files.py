"""Files of a guest, one at a time. Whole trees are in tree.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from os import fsencode

from firebrick.guest import message
from firebrick.guest.connection import Connection
from firebrick.guest.entries import EntryDecoder
from firebrick.guest.errors import FileMissingError, OutputTooLargeError, ProtocolError
from firebrick.guest.exchange import Stream, send_all
from firebrick.guest.execution import Text
from firebrick.guest.message import Entry

READ_LIMIT = 64 << 20
"""Bytes `read` takes at most unless told otherwise."""

LIST_LIMIT = 1 << 20
"""Entries `list` takes at most."""


class Files:
    """File operations of an agent; `Agent.files`. Paths are absolute, in the guest. Errors are AgentErrors of their own classes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, path: Text, *, offset: int = 0, limit: int | None = None) -> bytes:
        """The content from `offset`, at most `limit` bytes of it. Without `limit` the whole rest, which may have 64 MiB: more raises
        OutputTooLargeError."""
        bound = READ_LIMIT if limit is None else limit
        asked = message.Read(path=fsencode(path), offset=offset, limit=bound + 1 if limit is None else bound)
        async with self._connection.stream(asked) as stream:
            try:
                content = await stream.output.read_all(bound)
            except OutputTooLargeError as e:
                raise OutputTooLargeError(
                    f"cannot read {path!r}: it has more than {bound} bytes", hint="Read a part of it, or use `stream`."
                ) from e
            await stream.last(message.Done)
            return content

    async def stream(self, path: Text, *, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The content from `offset`, in chunks of any size. Close the iterator (`contextlib.aclosing`) if it is not run to its end."""
        asked = message.Read(path=fsencode(path), offset=offset, limit=None)
        async with self._connection.stream(asked) as stream:
            async for chunk in stream.output:
                yield chunk
            await stream.last(message.Done)

    async def write(
        self,
        path: Text,
        data: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        parents: bool = False,
        append: bool = False,
    ) -> int:
        """Write a file, new or in place of the old content, and return how many bytes. `mode`, `uid` and `gid` left out stay what
        they are, or are the agent's default for a new file; `parents` makes missing directories."""
        asked = message.Write(path=fsencode(path), mode=mode, uid=uid, gid=gid, parents=parents, append=append)
        async with self._connection.stream(asked) as stream:
            await send_all(stream, data)
            return (await stream.last(message.Done)).bytes or 0

    async def stat(self, path: Text, *, follow: bool = True) -> Entry:
        """What is at `path`; with `follow` false, of a symbolic link itself."""
        async with self._connection.stream(message.Stat(path=fsencode(path), follow=follow)) as stream:
            return await stream.last(Entry)

    async def exists(self, path: Text) -> bool:
        """Whether something is at `path`. A link that leads nowhere counts."""
        try:
            await self.stat(path, follow=False)
        except FileMissingError:
            return False
        return True

    async def list(self, path: Text) -> list[Entry]:
        """What a directory holds, sorted by name. Raises OutputTooLargeError above a million entries."""
        async with self._connection.stream(message.List(path=fsencode(path))) as stream:
            try:
                found = await _entries(stream, path)
            except ProtocolError as e:
                self._connection.fail(e)
                raise self._connection.failure() from e
        return sorted(found, key=lambda entry: entry.name)

    async def mkdir(self, path: Text, *, mode: int = 0o755, parents: bool = False) -> None:
        """Make a directory. With `parents` missing ones above it too, and it may exist."""
        await self._connection.do(message.Mkdir(path=fsencode(path), mode=mode, parents=parents))

    async def remove(self, path: Text, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive` whatever is there. Links are never followed."""
        await self._connection.do(message.Remove(path=fsencode(path), recursive=recursive, missing_ok=missing_ok))

    async def move(self, source: Text, target: Text, *, overwrite: bool = False) -> None:
        await self._connection.do(message.Move(source=fsencode(source), target=fsencode(target), overwrite=overwrite))

    async def symlink(self, path: Text, target: Text) -> None:
        """Make a symbolic link at `path` that says `target`."""
        await self._connection.do(message.Symlink(path=fsencode(path), target=fsencode(target)))

    async def chmod(self, path: Text, mode: int) -> None:
        await self._connection.do(message.Chmod(path=fsencode(path), mode=mode))


async def _entries(stream: Stream, path: Text) -> list[Entry]:
    decoder = EntryDecoder()
    found: list[Entry] = []
    async for chunk in stream.output:
        found += decoder.feed(chunk)
        if len(found) > LIST_LIMIT:
            raise OutputTooLargeError(f"cannot list {path!r}: it has more than {LIST_LIMIT} entries")
    await stream.last(message.Done)
    decoder.finish()
    return found
