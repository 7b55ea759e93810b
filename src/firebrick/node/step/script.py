"""The script of a `run` step in its shell, or the program of an action: started, listened to, and ended in time."""

from __future__ import annotations

import asyncio
import posixpath
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from firebrick.guest.client import Entry, ExitStatus, Move, Process, Put
from firebrick.guest.errors import FileMissingError
from firebrick.node.context import TEMP
from firebrick.node.errors import StepError
from firebrick.node.lines import LineSplitter
from firebrick.node.step.bench import Bench, Command
from firebrick.node.step.deadline import Deadline
from firebrick.node.step.filecommand import StepFiles
from firebrick.node.step.listener import Heard, Listener
from firebrick.node.step.outputs import StepOutputs
from firebrick.task import end_tasks
from firebrick.workflow.outcome import FAILURE, SUCCESS
from firebrick.workflow.shell import Shell

_BACKSTOP_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`directory` is relative to the workspace, or empty; `name` is that of its file, without what the shell adds."""

    text: str
    shell: Shell
    directory: str
    deadline: Deadline | None
    name: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def path(self) -> str:
        return f"{TEMP}/{self.name}{self.shell.extension}"

    @property
    def preparation(self) -> Put:
        """What makes its file."""
        return Put(path=self.path.encode(), data=self.shell.script(self.text), mode=0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command line in the machine; `directory` is absolute, `env` complete, `text` the script it runs, where it runs one. `before` is done first;
    `listing` is a directory, or empty: what it holds in the end is in the result. `exit_is_told`: a status other than 0 is an error in the log."""

    argv: Sequence[str]
    directory: str
    env: Mapping[str, str]
    deadline: Deadline | None
    text: str = ""
    before: Sequence[Put | Move] = ()
    listing: str = ""
    exit_is_told: bool = True


@dataclass(slots=True)
class Result:
    """`interrupted`: it was ended because the run was cancelled. `state` is what the later phases of an action get. `listing` is None where it was not
    asked for, or is not known."""

    outcome: str = SUCCESS
    exit_code: int | None = None
    outputs: StepOutputs = field(default_factory=StepOutputs)
    state: StepOutputs = field(default_factory=StepOutputs)
    interrupted: bool = False
    listing: Sequence[Entry] | None = None


async def run_script(bench: Bench, number: int, script: Script, env: Mapping[str, str], files: StepFiles) -> Result:
    """Write it, and run it to its end; `env` is complete, `files` are made. Raises PreparationError, StepError for a shell the machine has not,
    FileMissingError and its like for what else cannot be started."""
    shell = script.shell
    directory = posixpath.normpath(posixpath.join(bench.paths.workspace, script.directory))
    program = Program(
        argv=shell.argv(script.path),
        directory=directory,
        env=env,
        deadline=script.deadline,
        text=script.text,
        before=(*files.preparation, script.preparation),
        listing=files.directory,
    )
    try:
        return await run_program(bench, number, program)
    except FileMissingError as error:
        if not await bench.guest.files.exists(directory):
            raise
        if shell.fallback is None:
            hint = "Name another `shell`, or in `runs-on` an image that has it."
            raise StepError(f"cannot run {shell.program!r}: the image has no such program", hint=hint) from error
        return await run_program(bench, number, replace(program, argv=shell.fallback.argv(script.path), before=()))


class _Cause(Enum):
    """Why a process was ended before its time."""

    CANCELLED = auto()
    TIMEOUT = auto()


async def run_program(bench: Bench, number: int, program: Program, state: StepOutputs | None = None) -> Result:
    """Run it to its end, doing what its lines ask for; `state` is added to. A cancellation or the end of its time ends it. Raises
    FileMissingError and its like for what cannot be started."""
    bench.variables.command = Command(
        argv=tuple(program.argv), directory=program.directory, env=program.env, text=program.text
    )
    listener = Listener(bench, number, program.env, state)
    timeout_s = program.deadline.left_s if program.deadline is not None else None
    # The guest ends it itself where this end should be too busy to: later than the signals from here.
    slack = bench.settings.interrupt_s + bench.settings.terminate_s + _BACKSTOP_S
    started = bench.guest.exec(
        program.argv,
        env=program.env,
        cwd=program.directory,
        timeout=timeout_s + slack if timeout_s is not None else None,
        merge=True,
        before=program.before,
        listing=program.listing or None,
    )
    async with started as process, _ended_in_time(bench, process, timeout_s) as end:
        splitter = LineSplitter(masker=bench.log.masker)
        async for chunk in process.stdout:
            await listener.hear(splitter.feed(chunk))
        await listener.hear(splitter.end())
        status = await process.wait()
    cause = _Cause.TIMEOUT if status.timed_out else end.cause
    return _conclude(bench, number, listener.heard, status, cause, program)


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
        await end_tasks(task)


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
    bench: Bench, number: int, heard: Heard, status: ExitStatus, cause: _Cause | None, program: Program
) -> Result:
    """How it ended, and in words where that is a failure."""
    code = status.code if status.code is not None else 128 + (status.signal or 0)
    outcome = SUCCESS if status.ok and cause is None and not heard.refused else FAILURE
    result = Result(outcome, code, heard.outputs, heard.state, cause is _Cause.CANCELLED, status.listing)
    log = bench.log
    if cause is _Cause.CANCELLED:
        if not bench.stopped:  # else somebody wanted it so
            log.fault(number, "The operation was canceled.")
    elif cause is _Cause.TIMEOUT and program.deadline is not None:
        log.fault(number, program.deadline.passed)
    elif not status.ok:
        if status.oom:
            log.fault(number, "The machine ran out of memory: a process of this step was killed.")
        if program.exit_is_told:
            log.fault(number, f"Process completed with exit code {code}.")
    return result
