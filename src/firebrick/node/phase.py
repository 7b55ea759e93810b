"""One phase of one step: whether it runs, what it is given, how it ends, and what it leaves behind.

perform(entry, phase)            condition, attempt, `continue-on-error`, record
  a script                       run_script
  an action the node does        its `run`
  a JavaScript action            run_javascript
  a composite action             perform, for each of its own steps
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from firebrick.guest.errors import AgentError, MessageTooLargeError, OutputTooLargeError, TreeError
from firebrick.node.action.inputs import action_inputs, native_inputs, warn_of_inputs
from firebrick.node.action.javascript import run_javascript
from firebrick.node.action.use import (
    CompositeUse,
    Entry,
    JavaScriptUse,
    NativeUse,
    Phase,
    Use,
    condition_of,
    has_phase,
)
from firebrick.node.bench import Bench, Caller, place_context
from firebrick.node.context import HOME, PATH, run_facts
from firebrick.node.deadline import Deadline, earlier
from firebrick.node.errors import NodeError, StepError, told
from firebrick.node.filecommand import StepFiles
from firebrick.node.outputs import StepOutputs
from firebrick.node.script import Result, Script, run_script
from firebrick.workflow.command_file import FileCommandError
from firebrick.workflow.context import default_environment, step_environment
from firebrick.workflow.expression import EvaluationError
from firebrick.workflow.outcome import CANCELLED, FAILURE, SKIPPED, SUCCESS, StepOutcome, flag, timeout_s
from firebrick.workflow.shell import ShellError
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Template

# What a step can do wrong without the job being lost: it fails, and the ones after it are asked whether they run.
_FAULTS = (
    *(EvaluationError, ShellError, NodeError, FileCommandError),
    *(AgentError, TreeError, OutputTooLargeError, MessageTooLargeError),
)
_MOST_SUMMARY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a phase ended. `outcome` is before `continue-on-error`, `conclusion` after it."""

    outcome: str
    conclusion: str = ""
    exit_code: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


Begin = Callable[[], Awaitable[None]]


async def perform(bench: Bench, number: int, entry: Entry, phase: Phase, begin: Begin | None = None) -> Ending:
    """Run the phase if its condition holds, and record how it ended for the steps after it. `number` is the step of the job that its lines belong
    to; `begin` is called when it is known that it runs.

    Raises what loses the job: ChannelError, MachineError."""
    bench.step_end = bench.cancellation.next_end
    bench.action = entry.name
    wanted = await _wanted(bench, number, entry, phase)
    if wanted is False:
        ending = Ending(outcome=SKIPPED, conclusion=SKIPPED)
    else:
        if begin is not None:
            await begin()
        ending = Ending(outcome=FAILURE) if wanted is None else await _attempt(bench, number, entry, phase)
        forgiven = ending.outcome == FAILURE and await _continues(bench, number, entry.step)
        ending = replace(ending, conclusion=SUCCESS if forgiven else ending.outcome)
    step_id = entry.step.id if phase is Phase.MAIN else ""
    bench.record(step_id, StepOutcome(ending.outcome, ending.conclusion, ending.outputs))
    return ending


async def _wanted(bench: Bench, number: int, entry: Entry, phase: Phase) -> bool | None:
    """Whether its condition holds; None where it cannot be evaluated, which is a failure of the step."""
    condition = condition_of(entry, phase)
    if condition is None:
        return True
    try:
        return await bench.evaluate(condition.holds)
    except EvaluationError as error:
        bench.log.fault(number, f"The template is not valid. `if` of the step: {error}")
        return None


async def _continues(bench: Bench, number: int, step: Step) -> bool:
    try:
        return await bench.evaluate(lambda scope: flag(step.continue_on_error, scope))
    except EvaluationError as error:
        bench.log.fault(number, f"The template is not valid. `continue-on-error` of the step: {error}")
        return False


async def _attempt(bench: Bench, number: int, entry: Entry, phase: Phase) -> Ending:
    try:
        env = await bench.evaluate(entry.step.env.texts)
        deadline = await _deadline(bench, entry.step, env)
        if entry.step.uses is None:
            return await _run(bench, number, entry, env, deadline)
        use = entry.use = entry.use or await _found(bench, number, entry.step.uses)
        if phase is not Phase.POST and entry not in bench.posts:
            bench.posts.append(entry)  # before it runs: what has begun is cleaned up, however it ends
        return await _act(_Turn(bench, number, entry, phase, env, deadline), use)
    except _FAULTS as error:
        bench.log.fault(number, told(error))
        return Ending(outcome=FAILURE)


async def _deadline(bench: Bench, step: Step, env: Mapping[str, str]) -> Deadline | None:
    own = None
    if step.timeout_minutes is not None:
        own = Deadline.after(await bench.evaluate(lambda scope: timeout_s(step.timeout_minutes, scope, 0.0), env))
    return earlier(own, bench.caller.deadline if bench.caller is not None else None)


# --- scripts ---


async def _run(bench: Bench, number: int, entry: Entry, env: Mapping[str, str], deadline: Deadline | None) -> Ending:
    step = entry.step
    assert step.run is not None
    text = await bench.evaluate(step.run.text, env)
    shell = await _default(bench, step.shell, "shell", env)
    directory = await _default(bench, step.working_directory, "working_directory", env)

    async def start(environment: Mapping[str, str]) -> Result:
        script = Script(text=text, shell=shell, directory=directory, env=environment, deadline=deadline)
        return await run_script(bench, number, script)

    return await _with_files(bench, number, env, start)


async def _default(bench: Bench, own: Template | None, key: str, env: Mapping[str, str]) -> str:
    """A setting of the step, else of the job's `defaults.run`, else of the workflow's; these are nothing to the steps of an action."""
    candidates = [own]
    if bench.caller is None:
        candidates += [getattr(bench.defaults, key), getattr(bench.order.workflow.defaults, key)]
    template = next((candidate for candidate in candidates if candidate is not None), None)
    return "" if template is None else await bench.evaluate(template.text, env)


async def _with_files(
    bench: Bench, number: int, env: Mapping[str, str], start: Callable[[Mapping[str, str]], Awaitable[Result]]
) -> Ending:
    """Start a program with files for its commands; they are read after it, even where it failed."""
    files = StepFiles()
    await files.create(bench.guest)
    result = await start(_environment(bench, env, files))
    left = await files.collect(bench, number, result.outputs, result.state)
    outcome = FAILURE if left.failed and result.outcome == SUCCESS else result.outcome
    if result.interrupted:
        outcome = CANCELLED
    return Ending(outcome=outcome, exit_code=result.exit_code, outputs=result.outputs, summary=left.summary)


def _environment(bench: Bench, env: Mapping[str, str], files: StepFiles) -> dict[str, str]:
    """Workflow, job and GITHUB_ENV, then the steps that use the action this one is of, then the step, then what no step can change; PATH with what
    steps before have added."""
    defaults = default_environment(
        run_facts(bench.order),
        job=bench.job_id,
        runner=bench.runner,
        paths=bench.paths,
        files=files.paths,
        action=bench.action,
    )
    given: Mapping[str, str] = {}
    if bench.caller is not None:
        given = bench.caller.env
        defaults |= {f"GITHUB_{name.upper()}": value for name, value in place_context(bench.caller.place).items()}
    machine = {"HOME": HOME, "PATH": PATH, **bench.image_env}
    return step_environment((machine, bench.env, given, env), defaults, added_path=bench.path, path=machine["PATH"])


# --- actions ---


@dataclass(frozen=True, slots=True)
class _Turn:
    """One phase of an action: `env` is the step's own."""

    bench: Bench
    number: int
    entry: Entry
    phase: Phase
    env: Mapping[str, str]
    deadline: Deadline | None


async def _found(bench: Bench, number: int, path: str) -> Use:
    """An action of the workspace. Its `pre` would have had to run before the job's first step, when it was not known yet."""
    use = await bench.actions.open_local(path, bench.guest, bench.paths.workspace, bench.depth)
    if has_phase(use, Phase.PRE):
        bench.log.line(number, f"`pre` execution is not supported for local action from '{path}'", "node")
    return use


async def _act(turn: _Turn, use: Use) -> Ending:
    bench, step = turn.bench, turn.entry.step
    if isinstance(use, NativeUse):
        return await _native(turn, use)
    inputs = await action_inputs(bench, step, use.file, turn.env)
    if turn.phase is Phase.MAIN:
        warn_of_inputs(bench, turn.number, step, use.file, inputs)
    if isinstance(use, CompositeUse):
        return await _composite(turn, use, inputs)
    return await _javascript(turn, use, inputs)


async def _native(turn: _Turn, use: NativeUse) -> Ending:
    inputs = await native_inputs(turn.bench, turn.entry.step, turn.env)
    left_s = turn.deadline.left_s if turn.deadline is not None else None
    try:
        async with asyncio.timeout(left_s):
            return Ending(outcome=SUCCESS, outputs=await use.run(turn.bench, turn.number, inputs))
    except TimeoutError:
        raise StepError("the step has run out of time") from None


async def _javascript(turn: _Turn, use: JavaScriptUse, inputs: dict[str, str]) -> Ending:
    async def start(environment: Mapping[str, str]) -> Result:
        return await run_javascript(
            turn.bench, turn.number, use, turn.phase, inputs=inputs, env=environment, deadline=turn.deadline
        )

    return await _with_files(turn.bench, turn.number, turn.env, start)


async def _composite(turn: _Turn, use: CompositeUse, inputs: dict[str, str]) -> Ending:
    """The steps of the action. They have a status, outputs and conditions of their own; what fails of them and is not forgiven fails the step."""
    bench = turn.bench
    caller = Caller(
        bench=bench,
        place=use.place,
        env={**(bench.caller.env if bench.caller is not None else {}), **turn.env},
        inputs=inputs,
        deadline=turn.deadline,
        depth=bench.depth + 1,
    )
    await bench.actions.place(use.place, bench.guest)
    inner = use.inner = use.inner or bench.within(caller)
    inner.caller, inner.failed = caller, False
    endings = [await perform(inner, turn.number, entry, turn.phase) for entry in _due(use, inner, turn.phase)]
    outputs = await _outputs(inner, use) if turn.phase is Phase.MAIN else {}
    cancelled = any(ending.outcome == CANCELLED for ending in endings)
    outcome = CANCELLED if cancelled else FAILURE if inner.failed else SUCCESS
    return Ending(outcome=outcome, outputs=outputs, summary=_joined(ending.summary for ending in endings))


def _due(use: CompositeUse, inner: Bench, phase: Phase) -> list[Entry]:
    match phase:
        case Phase.MAIN:
            return list(use.entries)
        case Phase.PRE:
            return [entry for entry in use.entries if has_phase(entry.use, phase)]
        case Phase.POST:
            return posts_of(inner)


def posts_of(bench: Bench) -> list[Entry]:
    """The steps that have something to do after the last one: what began first ends last."""
    return [entry for entry in reversed(bench.posts) if has_phase(entry.use, Phase.POST)]


async def _outputs(inner: Bench, use: CompositeUse) -> StepOutputs:
    outputs = StepOutputs()
    for name, output in use.file.outputs.items():
        if output.value is not None:
            outputs.set(name, await inner.evaluate(output.value.text))
    return outputs


def _joined(summaries: Iterable[str]) -> str:
    return "".join(summaries)[:_MOST_SUMMARY]
