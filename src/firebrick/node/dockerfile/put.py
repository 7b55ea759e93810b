"""Files into the machine of a stage, as `COPY` and `ADD` do it."""

from __future__ import annotations

import contextlib
import os
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.dockerfile.work import Copy
from firebrick.guest.client import Entry, Process, Record, TreeEntry
from firebrick.guest.errors import AgentError, FileMissingError, NotADirectoryInGuestError, StreamClosedError
from firebrick.guest.tree import in_thread, next_block
from firebrick.node.content import find_content
from firebrick.node.dockerfile.archive import is_archive, unpacked
from firebrick.node.dockerfile.context import Chosen, ContextError, File
from firebrick.node.guest import Guest
from firebrick.task import alongside

_LIST_LIMIT: Final = 1 << 20
_MAX_ID: Final = (1 << 32) - 2
_NOWHERE: Final = Path(os.devnull)


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry for a directory of the machine; `path` is relative to that. `text` is its content where it is in no file here."""

    path: str
    file: File
    text: bytes | None = None

    @property
    def size(self) -> int:
        return self.file.size if self.text is None else len(self.text)

    def content(self) -> Iterable[bytes]:
        return self.file.content() if self.text is None else (self.text,)


async def put(guest: Guest, copy: Copy, chosen: Sequence[Chosen], *, limit: int) -> None:
    """`limit` is in bytes, for each archive that is taken apart. Raises ContextError, AgentError, TreeError."""
    uid, gid = await _owner(guest, copy.owner)
    archives: list[Chosen] = []
    plain: list[Chosen] = []
    for each in chosen:
        (archives if copy.unpacks and await _is_archive(each) else plain).append(each)
    if plain or copy.texts:
        for directory, items in (await _laid_out(guest, copy, plain)).items():
            await _send(guest, directory, items, uid, gid, copy.mode)
    for each in archives:
        if copy.owner or copy.mode is not None:
            raise ContextError(f"--chown and --chmod of an archive are not supported, and {each.name!r} is one")
        await _unpack(guest, copy.target, each.files[0], limit)


async def _is_archive(chosen: Chosen) -> bool:
    return not chosen.is_directory and await in_thread(is_archive, chosen.files[0])


async def _laid_out(guest: Guest, copy: Copy, chosen: Sequence[Chosen]) -> dict[str, list[_Item]]:
    """What goes into which directory of the machine."""
    texts = [_Item(name, File("", "file", 0o644, _NOWHERE), text.encode()) for name, text in copy.texts]
    files = [*(_Item(each.name, each.files[0]) for each in chosen if not each.is_directory), *texts]
    out: dict[str, list[_Item]] = {}
    target = copy.target.rstrip("/") or "/"
    for each in chosen:
        if each.is_directory:
            out.setdefault(target, []).extend(_Item(file.path, file) for file in each.files if file.path)
    if not files:
        out.setdefault(target, [])
        return out
    inside = copy.target.endswith("/") or len(files) + len(out) > 1 or await _is_directory(guest, target)
    if inside:
        out.setdefault(target, []).extend(files)
    else:
        directory, name = posixpath.split(target)
        out[directory] = [_Item(name, files[0].file, files[0].text)]
    return out


async def _is_directory(guest: Guest, path: str) -> bool:
    found = await _found(guest, path)
    return found is not None and found.kind == "directory"


async def _found(guest: Guest, path: str, *, follow: bool = True) -> Entry | None:
    try:
        return await guest.files.stat(path, follow=follow)
    except (FileMissingError, NotADirectoryInGuestError):
        return None


async def _send(guest: Guest, directory: str, items: Sequence[_Item], uid: int, gid: int, mode: int | None) -> None:
    """What is there already of directories stays as it is, whoever it belongs to."""
    standing: dict[str, Entry] = {}
    top = await _found(guest, directory)
    if top is None:
        await guest.files.mkdir(directory, parents=True)
    else:
        standing[""] = top
        for item in items:
            if item.file.kind == "directory" and posixpath.dirname(item.path) in standing:
                there = await _found(guest, posixpath.join(directory, item.path), follow=False)
                if there is not None and there.kind == "directory":
                    standing[item.path] = there
    top_file = File("", "directory", 0o755, _NOWHERE)
    await guest.upload_entries(_entries([_Item("", top_file), *items], standing, uid, gid, mode), directory)


def _entries(
    items: Iterable[_Item], standing: Mapping[str, Entry], uid: int, gid: int, mode: int | None
) -> Iterator[TreeEntry]:
    now = time.time_ns()
    for item in items:
        path, file = os.fsencode(item.path), item.file
        if file.kind == "directory" and (there := standing.get(item.path)) is not None:
            same = Record(
                path=path, kind="directory", mode=there.mode, mtime_ns=there.mtime_ns, uid=there.uid, gid=there.gid
            )
            yield same, ()
            continue
        record = Record(
            path=path,
            kind=file.kind,
            mode=file.mode if mode is None or not item.path else mode,
            mtime_ns=now,
            uid=uid,
            gid=gid,
            size=item.size if file.kind == "file" else None,
            target=os.fsencode(file.link) if file.kind == "symlink" else None,
        )
        yield record, item.content() if file.kind == "file" else ()


async def _unpack(guest: Guest, target: str, file: File, limit: int) -> None:
    directory = target.rstrip("/") or "/"
    await guest.files.mkdir(directory, parents=True)
    async with (
        guest.exec(["tar", "-x", "-f", "-", "-C", directory], stdin=True, merge=True) as process,
        alongside(process.stdout.read_all(_LIST_LIMIT), name="build-unpack") as said,
    ):
        await _feed(process, unpacked(file, limit))
        status = await process.wait()
        words = (await said).decode(errors="replace").strip()
    if not status.ok:
        raise ContextError(f"tar {status}" + (f": {words[-500:]}" if words else ""))


async def _feed(process: Process, pieces: Iterator[bytes]) -> None:
    with contextlib.suppress(StreamClosedError):  # it has ended before the archive has: its status says why
        while piece := await in_thread(next_block, pieces):
            await process.write(piece)
        await process.close_stdin()


# --- owners ---


async def _owner(guest: Guest, text: str) -> tuple[int, int]:
    """`user`, `user:group`, by names or numbers. Raises ContextError."""
    if not text:
        return 0, 0
    user, colon, group = text.partition(":")
    row = await _row(guest, "/etc/passwd", user)
    uid = _number(user, row, 2)
    if colon:
        return uid, _number(group, await _row(guest, "/etc/group", group), 2)
    return uid, _number("", row, 3) if row else uid


async def _row(guest: Guest, path: str, name: str) -> list[str]:
    """The line of a list of users or groups that is about `name`; empty where none is."""
    try:
        content = await find_content(guest.files, path, _LIST_LIMIT) or b""
    except AgentError:
        return []
    rows = (line.split(":") for line in content.decode(errors="replace").splitlines())
    return next((row for row in rows if len(row) > 3 and row[0] == name), [])


def _number(name: str, row: Sequence[str], column: int) -> int:
    text = name if name.isdecimal() else row[column] if row else ""
    if not text.isdecimal() or len(text) > 10 or int(text) > _MAX_ID:
        raise ContextError(f"there is no user or group {name[:60]!r} in the image")
    return int(text)
