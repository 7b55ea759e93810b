"""One stage in its machine: its operations, one after the other, and what later stages copy of it."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firebrick.dockerfile.pattern import PatternError, is_pattern, matching
from firebrick.dockerfile.work import Copy, MakeDirectory, Operation, Run, Work
from firebrick.guest.client import ExitStatus, TreeLimits
from firebrick.guest.errors import AgentError, FileMissingError, OutputTooLargeError, TreeError
from firebrick.node.container.service import agent_user
from firebrick.node.dockerfile.context import Chosen, Context, ContextError
from firebrick.node.dockerfile.put import put
from firebrick.node.dockerfile.source import BuildSource
from firebrick.node.guest import Guest, Say
from firebrick.node.lines import LineSplitter
from firebrick.workflow.command.masker import Masker

_MOST_FOUND: Final = 1000
_ENTRY: Final = 4096
"""What a file or directory takes besides its content."""

_OF_THE_MACHINE: Final = ("proc/*", "sys/*", "dev/*", "run/*")
"""What a machine has there is its own, and not of its image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where lines go: `say` takes those of the build itself, `lines` those a command writes, which `masker` must not be cut by."""

    say: Say
    lines: Callable[[Sequence[str]], None]
    masker: Masker


async def carry_out(
    guest: Guest, source: BuildSource, work: Work, files: Mapping[int, Sequence[Chosen]], report: Report, *, limit: int
) -> None:
    """`files` are those of each `COPY`, by its number. Raises ActionError with the line of what failed, ChannelError."""
    count = len(work.operations)
    for number, (operation, shown) in enumerate(zip(work.operations, work.shown, strict=True)):
        report.say(f"[{number + 1}/{count}] {shown}")
        try:
            await _carry_out(guest, operation, files.get(number, ()), report, limit)
        except (ContextError, AgentError, TreeError, OutputTooLargeError) as error:
            raise source.fault(operation.line, f"`{shown[:200]}` failed: {error}") from error


async def _carry_out(guest: Guest, operation: Operation, files: Sequence[Chosen], report: Report, limit: int) -> None:
    match operation:
        case Run():
            await _run(guest, operation, report)
        case Copy():
            await put(guest, operation, files, limit=limit)
        case MakeDirectory(path=path):
            await guest.files.mkdir(path, parents=True)


async def _run(guest: Guest, operation: Run, report: Report) -> None:
    if operation.directory != "/":
        await guest.files.mkdir(operation.directory, parents=True)  # an image may say one that is not there
    made = [path for path in operation.passing if not await guest.files.exists(path)]
    for path in made:
        await guest.files.mkdir(path, parents=True)
    status = await _ended(guest, operation, report)
    if not status.ok:
        raise ContextError(f"it {status}")
    for path in made:
        await guest.files.remove(path, recursive=True, missing_ok=True)


async def _ended(guest: Guest, operation: Run, report: Report) -> ExitStatus:
    splitter = LineSplitter(masker=report.masker)
    async with guest.exec(
        operation.argv,
        env=operation.env,
        cwd=operation.directory,
        user=agent_user(operation.user),
        merge=True,
    ) as process:
        async for chunk in process.stdout:
            report.lines(list(splitter.feed(chunk)))
        report.lines(list(splitter.end()))
        return await process.wait()


async def archive_root(guest: Guest, fd: int, limit: int) -> None:
    """The root of the machine as an archive, without what is the machine's own."""
    limits = TreeLimits(bytes=limit, file_bytes=limit)
    await guest.archive("/", fd, exclude=_OF_THE_MACHINE, limits=limits)


@dataclass(slots=True)
class Budget:
    """How many bytes may still be brought to this host; a file without content takes some, too."""

    left: int


async def taken_out(guest: Guest, sources: Sequence[str], target: Path, budget: Budget) -> tuple[Chosen, ...]:
    """What these paths of the machine mean, absolute ones or patterns, brought to `target`. Raises ContextError, AgentError, TreeError."""
    chosen: list[Chosen] = []
    paths = [path for source in sources for path in await _found(guest, source)]
    for number, path in enumerate(paths):
        name = posixpath.basename(path) or "root"
        place = target / str(number)
        place.mkdir(parents=True)
        excluded = _OF_THE_MACHINE if path == "/" else ()
        left = max(budget.left, 0)
        limits = TreeLimits(entries=left // _ENTRY, bytes=left, file_bytes=left)
        try:
            count = await guest.download(path, place / name, exclude=excluded, limits=limits)
        except FileMissingError as error:
            raise ContextError(f"there is no file {path!r}") from error
        budget.left -= count.bytes + count.entries * _ENTRY
        chosen += Context(place, plain=False).choose([name])
    return tuple(chosen)


async def _found(guest: Guest, source: str) -> list[str]:
    """The paths a pattern means, component by component."""
    if not is_pattern(source):
        return [source]
    found = ["/"]
    for name in source.strip("/").split("/"):
        found = [path for directory in found for path in await _within(guest, directory, name)]
        if len(found) > _MOST_FOUND:
            raise ContextError(f"{source!r} means more than {_MOST_FOUND} files")
    if not found:
        raise ContextError(f"there is no file {source!r}")
    return found


async def _within(guest: Guest, directory: str, name: str) -> list[str]:
    if not is_pattern(name):
        path = posixpath.join(directory, name)
        return [path] if await guest.files.exists(path) else []
    try:
        entries = await guest.files.list(directory)
        names = matching(name, sorted(entry.name.decode() for entry in entries))
    except PatternError as error:
        raise ContextError(f"{name!r} {error}") from error
    except (AgentError, UnicodeDecodeError):
        return []
    return [posixpath.join(directory, each) for each in names]
