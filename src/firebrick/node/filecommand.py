"""The files a step writes for the runner: made fresh before it, read after it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firebrick.guest.errors import AgentError, OutputTooLargeError
from firebrick.node.bench import Bench
from firebrick.node.context import TEMP
from firebrick.node.errors import StepError
from firebrick.node.guest import Guest
from firebrick.node.outputs import StepOutputs
from firebrick.workflow.command_file import (
    MAX_SUMMARY,
    FileCommandError,
    check_summary,
    extend_path,
    file_command_failed,
    parse_environment,
    parse_pairs,
    parse_path,
)
from firebrick.workflow.context import CommandPaths

# Of a file as it is. What is kept of it is bounded beside: outputs by `StepOutputs`, the others by what Linux lets a program be given.
_LIMIT: Final = 2 << 20
_MOST_ENVIRONMENT: Final = 1 << 20
_MOST_PATH: Final = 64 << 10
_NAMES: Final = ("env", "output", "path", "state", "step_summary")


@dataclass(slots=True)
class Left:
    """What a step has left. `failed`: one of the files could not be understood."""

    summary: str = ""
    failed: bool = False


class StepFiles:
    """The files of one step, or of one step of an action."""

    def __init__(self) -> None:
        key = uuid.uuid4().hex
        self._paths = {name: f"{TEMP}/_runner_file_commands/{name}_{key}" for name in _NAMES}

    @property
    def paths(self) -> CommandPaths:
        return CommandPaths(**self._paths)

    async def create(self, guest: Guest) -> None:
        """Raises AgentError."""
        writes = (guest.files.write(path, b"", parents=True) for path in self._paths.values())
        for written in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(written, BaseException):
                raise written

    async def collect(self, bench: Bench, number: int, outputs: StepOutputs, state: StepOutputs) -> Left:
        """Apply what the step left to the bench, to `outputs` and to `state`, and return the rest. A file that breaks the grammar or holds too
        much is an error of the step."""
        left = Left()
        for name in ("env", "path", "output", "state", "step_summary"):
            try:
                await self._apply(name, bench, number, {"output": outputs, "state": state}, left)
            except (FileCommandError, OutputTooLargeError, StepError) as error:
                bench.log.fault(number, f"{file_command_failed(name)} {error}")
                left.failed = True
        return left

    async def _apply(self, name: str, bench: Bench, number: int, kept: Mapping[str, StepOutputs], left: Left) -> None:
        if name == "step_summary":
            left.summary = await self._summary(bench)
            return
        text = (await self._read(bench.guest, name, _LIMIT)).decode(errors="replace")
        if name == "path":
            bench.path = _bounded_path(extend_path(bench.path, parse_path(text)))
        elif name in kept:
            for key, value in parse_pairs(text):
                kept[name].set(key, value)
        else:
            environment = parse_environment(text)
            bench.env = _bounded_environment({**bench.env, **environment.variables})
            for error in environment.errors:
                bench.log.fault(number, error)

    async def _summary(self, bench: Bench) -> str:
        data = await self._read(bench.guest, "step_summary", MAX_SUMMARY)
        check_summary(len(data))
        return data.decode(errors="replace")

    async def _read(self, guest: Guest, name: str, limit: int) -> bytes:
        """A step may have removed its files: that is as if they were empty."""
        try:
            data = await guest.files.read(self._paths[name], limit=limit + 1)
        except AgentError:
            return b""
        if len(data) > limit and name != "step_summary":
            raise FileCommandError(f"The file has more than {limit >> 20} MiB.")
        return data


def _bounded_path(path: tuple[str, ...]) -> tuple[str, ...]:
    if sum(len(directory) + 1 for directory in path) > _MOST_PATH:
        raise FileCommandError(f"What was added to PATH has more than {_MOST_PATH >> 10} KiB.")
    return path


def _bounded_environment(env: dict[str, str]) -> dict[str, str]:
    if sum(len(name) + len(value) + 2 for name, value in env.items()) > _MOST_ENVIRONMENT:
        raise FileCommandError(f"The environment of the job has more than {_MOST_ENVIRONMENT >> 10} KiB.")
    return env
