"""One phase of one step: whether it runs, what it is given, how it ends, and what it leaves behind.

perform(entry, phase)            condition, attempt, `continue-on-error`, record
  wait, wait-all, cancel         Background.control
  a script                       run_step_script
  an action the node does        its `run`
  a JavaScript action            run_javascript
  an action that is an image     run_docker
  a composite action             perform, for each of its own steps
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from firebrick.guest.errors import AgentError, MessageTooLargeError, OutputTooLargeError, TreeError
from firebrick.node.action.docker import find_call, own_inputs, run_docker
from firebrick.node.action.inputs import action_inputs, native_inputs, warn_of_inputs, warn_of_native_inputs
from firebrick.node.action.javascript import run_javascript
from firebrick.node.action.use import (
    CompositeUse,
    DockerUse,
    Entry,
    JavaScriptUse,
    NativeUse,
    Phase,
    Place,
    Use,
    condition_of,
    has_phase,
)
from firebrick.node.errors import NodeError, told
from firebrick.node.step.bench import Bench, Caller
from firebrick.node.step.deadline import Deadline, earlier
from firebrick.node.step.filecommand import StepFiles
from firebrick.node.step.intime import StepCancelledError, in_time
from firebrick.node.step.launch import Ending, run_step_script, with_files
from firebrick.node.step.outputs import StepOutputs
from firebrick.node.step.script import Result
from firebrick.workflow.command.command import Message
from firebrick.workflow.command.file import FileCommandError
from firebrick.workflow.expression.expression import EvaluationError
from firebrick.workflow.outcome import CANCELLED, FAILURE, SKIPPED, SUCCESS, StepOutcome, flag, timeout_s
from firebrick.workflow.shell import ShellError
from firebrick.workflow.syntax import Step

# What a step can do wrong without the job being lost: it fails, and the ones after it are asked whether they run.
_FAULTS: Final = (
    *(EvaluationError, ShellError, NodeError, FileCommandError),
    *(AgentError, TreeError, OutputTooLargeError, MessageTooLargeError),
)
_MOST_SUMMARY: Final = 1 << 20

Begin = Callable[[], Awaitable[None]]


async def perform(bench: Bench, number: int, entry: Entry, phase: Phase, begin: Begin | None = None) -> Ending:
    """Run the phase if its condition holds, and record how it ended for the steps after it. `number` is the step of the job that its lines belong
    to; `begin` is called when it is known that it runs.

    Raises what loses the job: ChannelError, MachineError."""
    bench.step_end, bench.condition = bench.cancellation.next_end, condition_of(entry, phase)
    bench.action = entry.name
    wanted = await _wanted(bench, number, entry, phase)
    if wanted is False:
        ending = Ending(outcome=SKIPPED, conclusion=SKIPPED)
    else:
        ending = await _begun(bench, number, entry, phase, begin, sound=wanted is not None)
        forgiven = ending.outcome == FAILURE and await _continues(bench, number, entry.step)
        ending = replace(ending, conclusion=SUCCESS if forgiven else ending.outcome)
    step_id = entry.step.id if phase is Phase.MAIN else ""
    bench.record(step_id, StepOutcome(ending.outcome, ending.conclusion, ending.outputs))
    return ending


async def _begun(bench: Bench, number: int, entry: Entry, phase: Phase, begin: Begin | None, *, sound: bool) -> Ending:
    """The phase from its beginning; where its condition is not `sound`, it fails there."""
    try:
        if begin is not None:
            await begin()
    except StepCancelledError:
        return Ending(outcome=CANCELLED)
    return await _attempt(bench, number, entry, phase) if sound else Ending(outcome=FAILURE)


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
    if entry.step.control is not None:
        assert bench.background is not None
        return await bench.background.control(number, entry.step.control)
    try:
        env = await bench.evaluate(entry.step.env.texts)
        deadline = await _deadline(bench, entry.step, env)
        if entry.step.uses is None:
            return await run_step_script(bench, number, entry.step, env, deadline)
        if entry.use is None:
            entry.use = await in_time(bench, deadline, _found(bench, number, entry.step.uses))
        if phase is not Phase.POST and entry not in bench.posts:
            bench.posts.append(entry)  # before it runs: what has begun is cleaned up, however it ends
        return await _act(_Turn(bench, number, entry, phase, env, deadline), entry.use)
    except StepCancelledError as error:
        if not bench.stopped:  # else somebody wanted it so
            bench.log.fault(number, told(error))
        return Ending(outcome=CANCELLED)
    except _FAULTS as error:
        bench.log.fault(number, told(error))
        return Ending(outcome=FAILURE)


async def _deadline(bench: Bench, step: Step, env: Mapping[str, str]) -> Deadline | None:
    own = None
    if step.timeout_minutes is not None:
        limit_s = await bench.evaluate(lambda scope: timeout_s(step.timeout_minutes, scope, 0.0), env)
        own = Deadline.after(limit_s, bench.title, "background step" if step.background else "action")
    return earlier(own, bench.caller.deadline if bench.caller is not None else None)


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
    use = await bench.supplies.actions.open_local(path, bench.guest, bench.paths.workspace, bench.depth)
    if has_phase(use, Phase.PRE):
        text = f"`pre` execution is not supported for local action from '{path}'"
        bench.log.annotate(number, Message(level="warning", message=text))
    return use


async def _act(turn: _Turn, use: Use) -> Ending:
    bench, step = turn.bench, turn.entry.step
    if isinstance(use, NativeUse):
        return await _native(turn, use)
    inputs = await action_inputs(bench, step, use.file, turn.env)
    if turn.phase is Phase.MAIN:
        known = own_inputs(inputs) if isinstance(use, DockerUse) else inputs
        warn_of_inputs(bench, turn.number, step, use.file, known)
    if isinstance(use, CompositeUse):
        return await _composite(turn, use, inputs)
    if isinstance(use, DockerUse):
        return await _docker(turn, use, inputs)
    return await _javascript(turn, use, inputs)


async def _native(turn: _Turn, use: NativeUse) -> Ending:
    inputs = await native_inputs(turn.bench, turn.entry.step, turn.env)
    warn_of_native_inputs(turn.bench, turn.number, use.inputs, inputs)
    outputs = await in_time(turn.bench, turn.deadline, use.run(turn.bench, turn.number, inputs))
    return Ending(outcome=SUCCESS, outputs=outputs)


async def _javascript(turn: _Turn, use: JavaScriptUse, inputs: dict[str, str]) -> Ending:
    bench = turn.bench
    await in_time(bench, turn.deadline, bench.supplies.actions.place(use.place, bench.guest, node=True))

    async def start(environment: Mapping[str, str], files: StepFiles) -> Result:
        return await run_javascript(
            bench, turn.number, use, turn.phase, inputs=inputs, env=environment, files=files, deadline=turn.deadline
        )

    return await with_files(bench, turn.number, turn.env, start)


async def _docker(turn: _Turn, use: DockerUse, inputs: dict[str, str]) -> Ending:
    bench = turn.bench
    call = await find_call(bench.within(_caller(turn, use.place, inputs)), use, turn.phase, inputs)

    async def start(environment: Mapping[str, str], files: StepFiles) -> Result:
        await files.create(bench.guest)  # those of the job: the image's machine has its own
        return await run_docker(bench, turn.number, use, call, inputs=inputs, env=environment, deadline=turn.deadline)

    return await with_files(bench, turn.number, turn.env, start)


async def _composite(turn: _Turn, use: CompositeUse, inputs: dict[str, str]) -> Ending:
    """The steps of the action. They have a status, outputs and conditions of their own; what fails of them and is not forgiven fails the step."""
    bench = turn.bench
    caller = _caller(turn, use.place, inputs)
    await in_time(bench, turn.deadline, bench.supplies.actions.place(use.place, bench.guest))
    inner = use.inner = use.inner or bench.within(caller)
    inner.go_on_for(caller)
    endings = [await perform(inner, turn.number, entry, turn.phase) for entry in _due(use, inner, turn.phase)]
    outputs = await _outputs(inner, use) if turn.phase is Phase.MAIN else {}
    cancelled = any(ending.outcome == CANCELLED for ending in endings)
    outcome = CANCELLED if cancelled else FAILURE if inner.failed else SUCCESS
    return Ending(outcome=outcome, outputs=outputs, summary=_joined(ending.summary for ending in endings))


def _caller(turn: _Turn, place: Place, inputs: dict[str, str]) -> Caller:
    """The step as what is within its action sees it."""
    bench = turn.bench
    return Caller(
        bench=bench,
        place=place,
        env={**(bench.caller.env if bench.caller is not None else {}), **turn.env},
        inputs=inputs,
        deadline=turn.deadline,
        depth=bench.depth + 1,
    )


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
