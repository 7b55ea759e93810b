"""The files a step writes for the runner: made fresh before it, read after it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firebrick.guest.client import Entry, Move, Put
from firebrick.guest.errors import AgentError, OutputTooLargeError
from firebrick.node.content import find_content
from firebrick.node.context import TEMP
from firebrick.node.errors import StepError, told
from firebrick.node.guest import Guest
from firebrick.node.step.bench import Bench
from firebrick.node.step.outputs import StepOutputs
from firebrick.task import together
from firebrick.workflow.command.file import (
    MAX_SUMMARY,
    FileCommandError,
    extend_path,
    file_command_failed,
    parse_environment,
    parse_pairs,
    parse_path,
    summary_too_large,
)
from firebrick.workflow.context import CommandPaths

# Of a file as it is. What is kept of it is bounded beside: outputs by `StepOutputs`, the others by what Linux lets a program be given.
_LIMIT: Final = 2 << 20
_MOST_ENVIRONMENT: Final = 1 << 20
_MOST_PATH: Final = 64 << 10
_MOST_DIRECTORIES: Final = 1000
_NAMES: Final = ("env", "output", "path", "state", "step_summary")


@dataclass(slots=True)
class Left:
    """What a step has left. `failed`: one of the files could not be understood."""

    summary: str = ""
    failed: bool = False


class StepFiles:
    """The files of one step, or of one step of an action. `spare` is a directory of such files that nobody has used: taking it over costs the guest
    less than making five. Who starts the step's program makes them: by `preparation` along with it, or by `create`."""

    def __init__(self, spare: str = "") -> None:
        self.directory = f"{TEMP}/_runner_file_commands/{uuid.uuid4().hex}"
        self.untouched = False
        self._spare = spare
        self._paths = {name: f"{self.directory}/{name}" for name in _NAMES}

    @property
    def paths(self) -> CommandPaths:
        return CommandPaths(**self._paths)

    @property
    def preparation(self) -> tuple[Put | Move, ...]:
        """What makes them, before a program in the machine of the job."""
        if self._spare:
            return (Move(source=self._spare.encode(), target=self.directory.encode(), overwrite=False),)
        return tuple(Put(path=path.encode(), data=b"") for path in self._paths.values())

    def give_up_spare(self) -> bool:
        """Whether there was one."""
        spare, self._spare = self._spare, ""
        return bool(spare)

    async def create(self, guest: Guest) -> None:
        """Raises AgentError."""
        if self._spare:
            with contextlib.suppress(AgentError):  # a step may have removed it
                await guest.files.move(self._spare, self.directory)
                return
        await together(*(guest.files.write(path, b"", parents=True) for path in self._paths.values()))

    async def collect(
        self,
        bench: Bench,
        number: int,
        outputs: StepOutputs,
        state: StepOutputs,
        entries: Sequence[Entry] | None = None,
    ) -> Left:
        """Apply what the step left to the bench, to `outputs` and to `state`, and return the rest. `entries` are those of the directory, where they are
        known. A file that breaks the grammar or holds too much is an error of the step."""
        left = Left()
        found = await self._contents(bench.guest, entries)
        for name in ("path", "env", "state", "output"):
            try:
                _apply(name, _text(found[name]), bench, number, {"state": state, "output": outputs})
            except (FileCommandError, StepError) as error:
                bench.log.fault(number, file_command_failed(name))
                bench.log.fault(number, told(error))
                left.failed = True
        left.summary = await self._summary(found["step_summary"], bench, number)
        return left

    async def _summary(self, data: bytes, bench: Bench, number: int) -> str:
        if len(data) <= MAX_SUMMARY:
            return data.decode(errors="replace")
        try:
            size = (await bench.guest.files.stat(self._paths["step_summary"])).size
        except AgentError:
            size = len(data)
        bench.log.fault(number, summary_too_large(size))
        return ""

    async def _contents(self, guest: Guest, entries: Sequence[Entry] | None) -> dict[str, bytes]:
        """What is in each file. A step may have removed its files, or put something else in their place: that is as if they were empty."""
        found = dict.fromkeys(_NAMES, b"")
        try:
            entries = await guest.files.list(self.directory) if entries is None else entries
        except (AgentError, OutputTooLargeError):
            return found
        left = {entry.name.decode(errors="replace"): entry for entry in entries}
        self.untouched = left.keys() == set(_NAMES) and all(map(_is_empty, entries))
        names = [name for name in _NAMES if name in left and (left[name].size or left[name].kind != "file")]
        found.update(zip(names, await asyncio.gather(*(self._read(guest, name) for name in names)), strict=True))
        return found

    async def _read(self, guest: Guest, name: str) -> bytes:
        limit = MAX_SUMMARY if name == "step_summary" else _LIMIT
        try:
            return await find_content(guest.files, self._paths[name], limit + 1) or b""
        except (AgentError, StepError):
            return b""


def _is_empty(entry: Entry) -> bool:
    return (entry.kind, entry.size, entry.nlink) == ("file", 0, 1)


def _text(data: bytes) -> str:
    if len(data) > _LIMIT:
        raise FileCommandError(f"The file has more than {_LIMIT >> 20} MiB.")
    return data.decode(errors="replace")


def _apply(name: str, text: str, bench: Bench, number: int, kept: Mapping[str, StepOutputs]) -> None:
    if name == "path":
        add_path(bench, parse_path(text))
    elif name == "env":
        environment = parse_environment(text)
        add_environment(bench, environment.variables)
        for error in environment.errors:
            bench.log.fault(number, error)
    else:
        for key, value in parse_pairs(text):
            kept[name].set(key, value)


def add_environment(bench: Bench, variables: Mapping[str, str]) -> None:
    """Variables for the steps that follow. Raises FileCommandError, changing nothing, where it is too much."""
    bench.variables.add(variables, most=_MOST_ENVIRONMENT)


def add_path(bench: Bench, directories: Iterable[str]) -> None:
    """Directories before PATH, for the steps that follow. Raises FileCommandError, changing nothing, where it is too much. Each call takes time
    with all that were added, which are few."""
    added = tuple(directories)
    bench.path = _bounded_path(extend_path(bench.path, added))
    bench.variables.new_path = extend_path(bench.variables.new_path, added)


def _bounded_path(path: tuple[str, ...]) -> tuple[str, ...]:
    if sum(len(directory) + 1 for directory in path) > _MOST_PATH:
        raise FileCommandError(f"What was added to PATH has more than {_MOST_PATH >> 10} KiB.")
    if len(path) > _MOST_DIRECTORIES:
        raise FileCommandError(f"More than {_MOST_DIRECTORIES} directories were added to PATH.")
    return path
