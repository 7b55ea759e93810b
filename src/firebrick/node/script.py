"""The script of a `run` step in its shell, or the program of an action: started, listened to, and ended in time."""

from __future__ import annotations

import asyncio
import posixpath
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from firebrick.guest.client import ExitStatus, Process
from firebrick.guest.errors import FileMissingError
from firebrick.node.bench import Bench
from firebrick.node.context import TEMP
from firebrick.node.deadline import Deadline
from firebrick.node.errors import StepError
from firebrick.node.lines import LineSplitter
from firebrick.node.outputs import StepOutputs
from firebrick.workflow.command import (
    ANNOTATIONS_PER_LEVEL,
    CommandReader,
    Debug,
    EndGroup,
    Group,
    Mask,
    Message,
    Parsed,
    Refused,
    SaveState,
    SetOutput,
    Text,
)
from firebrick.workflow.outcome import FAILURE, SUCCESS
from firebrick.workflow.shell import Shell, find_shell


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`shell` is what the workflow says, or empty; `directory` is relative to the workspace, or empty; `env` is complete."""

    text: str
    shell: str
    directory: str
    env: Mapping[str, str]
    deadline: Deadline | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command line in the machine; `directory` is absolute, `env` complete."""

    argv: Sequence[str]
    directory: str
    env: Mapping[str, str]
    deadline: Deadline | None


@dataclass(slots=True)
class Result:
    """`interrupted`: it was ended because the run was cancelled. `state` is what the later phases of an action get."""

    outcome: str = SUCCESS
    exit_code: int | None = None
    outputs: StepOutputs = field(default_factory=StepOutputs)
    state: StepOutputs = field(default_factory=StepOutputs)
    interrupted: bool = False


async def run_script(bench: Bench, number: int, script: Script) -> Result:
    """Run it to its end. Raises ShellError for a shell that is none, FileMissingError and its like for what cannot be started."""
    shell = find_shell(script.shell)
    path = await _write(bench, shell, script)
    directory = posixpath.normpath(posixpath.join(bench.paths.workspace, script.directory))
    program = Program(argv=shell.argv(path), directory=directory, env=script.env, deadline=script.deadline)
    try:
        return await run_program(bench, number, program)
    except FileMissingError:
        if shell.fallback is None or not await bench.guest.files.exists(directory):
            raise
        return await run_program(bench, number, replace(program, argv=shell.fallback.argv(path)))


async def run_program(bench: Bench, number: int, program: Program, state: StepOutputs | None = None) -> Result:
    """Run it to its end, doing what its lines ask for; `state` is added to. Raises FileMissingError and its like for what cannot be started."""
    listener = _Listener(bench, number, Result(state=StepOutputs() if state is None else state))
    status = await _execute(bench, program, listener)
    return listener.conclude(status, program.deadline)


async def _write(bench: Bench, shell: Shell, script: Script) -> str:
    path = f"{TEMP}/{uuid.uuid4()}{shell.extension}"
    await bench.guest.files.write(path, shell.script(script.text), mode=0o755, parents=True)
    return path


async def _execute(bench: Bench, program: Program, listener: _Listener) -> ExitStatus:
    started = bench.guest.exec(
        program.argv,
        env=program.env,
        cwd=program.directory,
        timeout=program.deadline.left_s if program.deadline is not None else None,
        merge=True,
    )
    async with started as process, _ended_on_request(bench, process, listener):
        splitter = LineSplitter()
        async for chunk in process.stdout:
            for line in splitter.feed(chunk):
                listener.hear(line)
        for line in splitter.end():
            listener.hear(line)
        return await process.wait()


@asynccontextmanager
async def _ended_on_request(bench: Bench, process: Process, listener: _Listener) -> AsyncIterator[None]:
    """While the context lasts, a cancellation ends the process: politely, firmly, surely."""
    task = asyncio.create_task(_end(bench, process, listener), name=f"step-end-{bench.log.job}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _end(bench: Bench, process: Process, listener: _Listener) -> None:
    await bench.step_end.wait()
    listener.result.interrupted = True
    await process.signal(signal.SIGINT)
    await asyncio.sleep(bench.settings.interrupt_s)
    await process.signal(signal.SIGTERM)
    await asyncio.sleep(bench.settings.terminate_s)
    await process.signal(signal.SIGKILL)


class _Listener:
    """Makes log, annotations, masks and outputs of what a step writes."""

    def __init__(self, bench: Bench, number: int, result: Result) -> None:
        self._bench = bench
        self._number = number
        self.result = result
        unsecure = bench.env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS", "").lower() == "true"
        self._reader = CommandReader(bench.paths.workspace, allow_unsecure=unsecure)
        self._refused = 0

    def hear(self, line: str) -> None:
        found = self._reader.feed(line)
        if found != (Text(line),):  # a command takes of the log's limit, whether or not it shows
            self._bench.log.spend(self._number, len(line) + 1)
        for parsed in found:
            self._act(parsed)

    def _act(self, parsed: Parsed) -> None:
        log, number = self._bench.log, self._number
        match parsed:
            case Text(text):
                log.line(number, text)
            case Group(title):
                log.line(number, f"##[group]{title}")
            case EndGroup():
                log.line(number, "##[endgroup]")
            case Debug(text):
                if self._bench.env.get("ACTIONS_STEP_DEBUG", "").lower() == "true":
                    log.line(number, f"##[debug]{text}")
            case Message():
                log.annotate(number, parsed)
            case Mask(value):
                log.add_mask(number, value)
            case SetOutput(name, value):
                self._keep(self.result.outputs, name, value)
            case SaveState(name, value):
                self._keep(self.result.state, name, value)
            case Refused(message):
                self._refuse(message)

    def _keep(self, kept: StepOutputs, name: str, value: str) -> None:
        try:
            kept.set(name, value)
        except StepError as error:
            self._refuse(f"{error} {error.hint}")

    def _refuse(self, message: str) -> None:
        self._refused += 1
        if self._refused <= ANNOTATIONS_PER_LEVEL:
            self._bench.log.fault(self._number, message)
        self.result.outcome = FAILURE

    def conclude(self, status: ExitStatus, deadline: Deadline | None) -> Result:
        log, result = self._bench.log, self.result
        result.exit_code = status.code if status.code is not None else 128 + (status.signal or 0)
        if status.ok and not result.interrupted:
            return result
        result.outcome = FAILURE
        if result.interrupted:
            log.fault(self._number, "The operation was canceled.")
        elif status.timed_out:
            log.fault(
                self._number,
                f"The step has timed out after {deadline}.",
            )
        else:
            if status.oom:
                log.fault(self._number, "The machine ran out of memory: a process of this step was killed.")
            log.fault(self._number, f"Process completed with exit code {result.exit_code}.")
        return result
