"""The script of a `run` step in its shell: started, listened to, and ended in time."""

from __future__ import annotations

import asyncio
import posixpath
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from firebrick.guest.client import ExitStatus, Process
from firebrick.guest.errors import FileMissingError
from firebrick.node.bench import Bench
from firebrick.node.context import TEMP
from firebrick.node.lines import LineSplitter
from firebrick.node.listener import Heard, Listener
from firebrick.node.outputs import StepOutputs
from firebrick.workflow.outcome import FAILURE, SUCCESS
from firebrick.workflow.shell import Shell, find_shell

_BACKSTOP_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`shell` is what the workflow says, or empty; `directory` is relative to the workspace, or empty; `env` is complete. `name` is
    what people see of the step."""

    text: str
    shell: str
    directory: str
    env: Mapping[str, str]
    timeout_s: float | None
    name: str = ""


@dataclass(slots=True)
class Result:
    """`interrupted`: it was ended because the run was cancelled. `state` is what it saved for later steps of its action."""

    outcome: str = SUCCESS
    exit_code: int | None = None
    outputs: StepOutputs = field(default_factory=StepOutputs)
    state: StepOutputs = field(default_factory=StepOutputs)
    interrupted: bool = False


async def run_script(bench: Bench, number: int, script: Script) -> Result:
    """Run it to its end. Raises ShellError for a shell that is none, FileMissingError and its like for what cannot be started."""
    shell = find_shell(script.shell)
    path = await _write(bench, shell, script)
    directory = _directory(bench, script)
    try:
        return await run_command(bench, number, shell.argv(path), script, directory)
    except FileMissingError:
        if shell.fallback is None or not await bench.guest.files.exists(directory):
            raise
        return await run_command(bench, number, shell.fallback.argv(path), script, directory)


async def _write(bench: Bench, shell: Shell, script: Script) -> str:
    path = f"{TEMP}/{uuid.uuid4()}{shell.extension}"
    await bench.guest.files.write(path, shell.script(script.text), mode=0o755, parents=True)
    return path


def _directory(bench: Bench, script: Script) -> str:
    return posixpath.normpath(posixpath.join(bench.paths.workspace, script.directory))


class _Cause(Enum):
    """Why a process was ended before its time."""

    CANCELLED = auto()
    TIMEOUT = auto()


async def run_command(bench: Bench, number: int, argv: Sequence[str], script: Script, directory: str) -> Result:
    """Run a program as a step: what it writes is listened to, a cancellation or the end of its time ends it. Of `script` only the
    environment, the name and the time count. Raises FileMissingError and its like for what cannot be started."""
    listener = Listener(bench, number, script.env)
    # The guest ends it itself where this end should be too busy to: later than the signals from here.
    slack = bench.settings.interrupt_s + bench.settings.terminate_s + _BACKSTOP_S
    backstop = script.timeout_s + slack if script.timeout_s is not None else None
    started = bench.guest.exec(argv, env=script.env, cwd=directory, timeout=backstop, merge=True)
    async with started as process, _ended_in_time(bench, process, script.timeout_s) as end:
        splitter = LineSplitter()
        async for chunk in process.stdout:
            await listener.hear(splitter.feed(chunk))
        await listener.hear(splitter.end())
        status = await process.wait()
    cause = _Cause.TIMEOUT if status.timed_out else end.cause
    return _conclude(bench, number, listener.heard, status, cause, script)


@dataclass(slots=True)
class _End:
    cause: _Cause | None = None


@asynccontextmanager
async def _ended_in_time(bench: Bench, process: Process, timeout_s: float | None) -> AsyncIterator[_End]:
    """While the context lasts, a cancellation or the end of its time ends the process: politely, firmly, surely."""
    end = _End()
    task = asyncio.create_task(_end(bench, process, timeout_s, end), name=f"step-end-{bench.log.job}")
    try:
        yield end
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _end(bench: Bench, process: Process, timeout_s: float | None, end: _End) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await bench.step_ended()
        end.cause = _Cause.CANCELLED
    except TimeoutError:
        end.cause = _Cause.TIMEOUT
    await process.signal(signal.SIGINT)
    await asyncio.sleep(bench.settings.interrupt_s)
    await process.signal(signal.SIGTERM)
    await asyncio.sleep(bench.settings.terminate_s)
    await process.signal(signal.SIGKILL)


def _conclude(
    bench: Bench, number: int, heard: Heard, status: ExitStatus, cause: _Cause | None, script: Script
) -> Result:
    """How it ended, and in words where that is a failure."""
    code = status.code if status.code is not None else 128 + (status.signal or 0)
    outcome = SUCCESS if status.ok and cause is None and not heard.refused else FAILURE
    result = Result(outcome, code, heard.outputs, heard.state, cause is _Cause.CANCELLED)
    log = bench.log
    if cause is _Cause.CANCELLED:
        log.fault(number, "The operation was canceled.")
    elif cause is _Cause.TIMEOUT:
        what = f"The action '{script.name}'" if script.name else "The step"
        log.fault(number, f"{what} has timed out after {_minutes(script.timeout_s or 0.0)}.")
    elif not status.ok:
        if status.oom:
            log.fault(number, "The machine ran out of memory: a process of this step was killed.")
        log.fault(number, f"Process completed with exit code {code}.")
    return result


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:g} minute" + ("" if minutes == 1 else "s")
