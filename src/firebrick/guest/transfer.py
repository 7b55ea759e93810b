"""Moving whole directory trees between the host and a guest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from os import fsencode
from pathlib import Path, PurePath

from firebrick.guest import message
from firebrick.guest.connection import Connection
from firebrick.guest.exchange import Stream, send_all
from firebrick.guest.execution import Text
from firebrick.guest.tree import TreeCount, TreeLimits, in_thread, next_block
from firebrick.guest.tree_archive import TreeArchive
from firebrick.guest.tree_pack import TreeEntry, TreePack
from firebrick.guest.tree_source import TreeSource
from firebrick.guest.tree_target import TreeTarget


async def upload(
    connection: Connection,
    source: Path,
    target: Text,
    *,
    only: Iterable[PurePath] | None,
    uid: int | None,
    gid: int | None,
    exclude: Iterable[Text],
) -> TreeCount:
    """See `Agent.upload`."""
    tree = TreeSource(source, only=only, exclude=exclude)
    async with connection.stream(message.Upload(path=fsencode(target), uid=uid, gid=gid)) as stream:
        async with contextlib.aclosing(_blocks(tree)) as blocks:
            await send_all(stream, blocks)
        await stream.last(message.Done)
    return tree.count


async def upload_entries(connection: Connection, entries: Iterable[TreeEntry], target: Text) -> None:
    """See `Agent.upload_entries`."""
    async with connection.stream(message.Upload(path=fsencode(target), uid=None, gid=None)) as stream:
        async with contextlib.aclosing(_blocks(TreePack(entries))) as blocks:
            await send_all(stream, blocks)
        await stream.last(message.Done)


async def archive(
    connection: Connection, source: Text, target: int, *, exclude: Iterable[Text], limits: TreeLimits
) -> TreeCount:
    """See `Agent.archive`."""
    asked = message.Download(path=fsencode(source), exclude=tuple(fsencode(p) for p in exclude))
    async with connection.stream(asked) as stream:
        tree = TreeArchive(target, limits=limits)
        await _receive(stream, tree)
        return await in_thread(tree.finish)


async def download(
    connection: Connection, source: Text, target: Path, *, exclude: Iterable[Text], limits: TreeLimits
) -> TreeCount:
    """See `Agent.download`."""
    asked = message.Download(path=fsencode(source), exclude=tuple(fsencode(p) for p in exclude))
    async with connection.stream(asked) as stream:
        with TreeTarget(target, limits=limits) as tree:
            await _receive(stream, tree)
            return tree.finish()


async def _receive(stream: Stream, tree: TreeTarget | TreeArchive) -> None:
    while piece := await stream.output.take():
        await in_thread(tree.feed, piece)
    await stream.last(message.Done)


async def _blocks(tree: TreeSource | TreePack) -> AsyncGenerator[bytes, None]:
    """The blocks of a tree, one being read while the one before is sent."""
    blocks = tree.blocks()
    ahead = asyncio.create_task(in_thread(next_block, blocks), name="guest-upload-read")
    try:
        while block := await ahead:
            ahead = asyncio.create_task(in_thread(next_block, blocks), name="guest-upload-read")
            yield block
    finally:
        # The generator cannot be closed while a thread is in it.
        await asyncio.wait([ahead])
        if not ahead.cancelled():
            ahead.exception()
        blocks.close()
