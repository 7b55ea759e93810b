"""`actions/checkout`: a repository, put into the workspace. The machine needs no network, and gets no credential."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from firebrick.forge.errors import CloneLimitError, ForgeError
from firebrick.forge.limits import CloneLimits, bounded
from firebrick.guest.client import Files
from firebrick.guest.errors import AgentError, FileMissingError, NotADirectoryInGuestError, OutputTooLargeError
from firebrick.node.checkout.made import Made, Making
from firebrick.node.checkout.origin import Origins
from firebrick.node.checkout.repository import Scratch
from firebrick.node.checkout.wish import Wish, read_wish, remarks
from firebrick.node.context import run_facts
from firebrick.node.errors import CheckoutError
from firebrick.task import shielded
from firebrick.tree import remove as remove_tree

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_LONGEST_S: Final = 6 * 3600.0
_CONFIG_LIMIT: Final = 1 << 16
_ORIGIN: Final = re.compile(r'^\[remote "origin"\]\n(?:\t(?!url)[^\n]*\n)*\turl = ([^\n]*)$', re.MULTILINE)
_SOURCE_LIMIT: Final = "`source_limit_mib` in the [node] table of config.toml bounds what is put into a workspace."


async def checkout(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    """See `docs/reference/workflow.md` for the inputs. Raises CheckoutError, OriginError, SourceError, AgentError, TreeError."""
    source = bench.order.source
    wish = read_wish(inputs, workspace=bench.paths.workspace, own=source.repository)
    bench.log.line(number, f"Syncing repository: {wish.repository or source.repository}", "node")
    for remark in remarks(inputs):
        bench.log.line(number, remark, "node")
    async with _scratch(bench) as scratch:
        made = await _made(bench, wish, scratch)
        await _clear(bench, number, wish, made.url)
        size = await _put(bench, made)
    for text in (*made.said, f"{size / 1024:.0f} KiB, in {wish.path}"):
        bench.log.line(number, text, "node")
    return {"ref": made.ref, "commit": made.commit}


@asynccontextmanager
async def _scratch(bench: Bench) -> AsyncIterator[Scratch]:
    """Where repositories are made; nothing of it is left."""
    directory = bench.supplies.source.scratch / f"checkout-{secrets.token_hex(4)}"
    limits = CloneLimits(size_mib=bench.settings.source_limit_mib, seconds=_LONGEST_S)
    directory.mkdir(mode=0o700)
    try:
        scratch = Scratch(directory, limits)
        scratch.prepare()
        yield scratch
    finally:
        await shielded(asyncio.to_thread(remove_tree, directory))


async def _made(bench: Bench, wish: Wish, scratch: Scratch) -> Made:
    origins = Origins(bench.order.source, bench.settings, run_facts(bench.order).server_url)
    what = wish.repository or bench.order.source.repository
    try:
        making = Making(wish, bench.supplies.source, origins, scratch)
        return await bounded(making.make(), what, scratch.directory, scratch.limits)
    except CloneLimitError as error:
        raise CheckoutError(str(error), hint=_SOURCE_LIMIT) from error
    except ForgeError as error:
        raise CheckoutError(str(error), hint=error.hint) from error


# --- in the machine ---


async def _clear(bench: Bench, number: int, wish: Wish, url: str) -> None:
    """Make room: what is there goes, as with the action, unless it is of the same repository and is not to be cleaned."""
    files = bench.guest.files
    try:
        names = [entry.name for entry in await files.list(wish.path)]
    except FileMissingError:
        return
    except NotADirectoryInGuestError:
        await files.remove(wish.path)
        return
    if not wish.clean and await _origin_of(files, wish.path) == url:
        names = [b".git"]
    elif names:
        bench.log.line(number, f"Deleting the contents of '{wish.path}'", "node")
    for name in names:
        await files.remove(wish.path.encode() + b"/" + name, recursive=True, missing_ok=True)


async def _origin_of(files: Files, path: str) -> str | None:
    """The address of `origin` in the repository that is there, if it is one of ours."""
    try:
        text = await files.read(f"{path}/.git/config", limit=_CONFIG_LIMIT)
    except (AgentError, OutputTooLargeError):
        return None
    match = _ORIGIN.search(text.decode(errors="replace"))
    return match[1] if match else None


async def _put(bench: Bench, made: Made) -> int:
    """Bytes that went into the machine."""
    size = 0
    await bench.guest.files.mkdir(made.pieces[0].target, parents=True)
    for piece in made.pieces:
        size += (await bench.guest.upload(piece.root, piece.target, only=piece.only, uid=0, gid=0)).bytes
    return size
