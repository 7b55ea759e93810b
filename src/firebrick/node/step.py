"""One step of a job: whether it runs, what it is given, how it ends, and what it leaves behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from firebrick.guest.errors import AgentError, OutputTooLargeError, TreeError
from firebrick.node.action import run_action
from firebrick.node.bench import Bench
from firebrick.node.context import HOME, PATH, run_facts
from firebrick.node.errors import NodeError, told
from firebrick.node.event import Conclusion, StepFinished, StepStarted
from firebrick.node.filecommand import StepFiles
from firebrick.node.script import Script, run_script
from firebrick.workflow.command_file import FileCommandError
from firebrick.workflow.context import action_name, default_environment, step_environment
from firebrick.workflow.expression import EvaluationError
from firebrick.workflow.outcome import CANCELLED, FAILURE, SKIPPED, SUCCESS, StepOutcome, flag, timeout_s
from firebrick.workflow.shell import ShellError
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Template

# What a step can do wrong without the job being lost: it fails, and the ones after it are asked whether they run.
_FAULTS = (EvaluationError, ShellError, NodeError, AgentError, TreeError, OutputTooLargeError, FileCommandError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a step ended, before `continue-on-error`."""

    outcome: str
    exit_code: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


async def run_step(bench: Bench, number: int, step: Step) -> None:
    """Run the step if its condition holds, report it, and record it for the steps after it.

    Raises what loses the job: ChannelError, MachineError."""
    began = time.monotonic()
    bench.step_end = bench.cancellation.next_end
    wanted = await _wanted(bench, number, step)
    if wanted is False:
        bench.record(step.id, StepOutcome(SKIPPED, SKIPPED))
        _report(bench, number, SKIPPED, began, Ending(outcome=SKIPPED))
        return
    name = await _name(bench, step)
    bench.log.emit(StepStarted(at=time.time(), job=bench.log.job, step=number, name=name))
    bench.command = None
    await bench.keeper.before(bench, number, step, name)
    ending = Ending(outcome=FAILURE) if wanted is None else await _attempt(bench, number, step)
    forgiven = ending.outcome == FAILURE and await _continues(bench, number, step)
    conclusion = SUCCESS if forgiven else ending.outcome
    if conclusion == FAILURE:
        await bench.keeper.failed(bench, number, name, ending.exit_code)
    bench.record(step.id, StepOutcome(ending.outcome, conclusion, ending.outputs))
    _report(bench, number, conclusion, began, ending)


async def _wanted(bench: Bench, number: int, step: Step) -> bool | None:
    """Whether its condition holds; None where it cannot be evaluated, which is a failure of the step."""
    try:
        return await bench.evaluate(step.if_.holds)
    except EvaluationError as error:
        bench.log.fault(number, f"The template is not valid. `if` of the step: {error}")
        return None


async def _name(bench: Bench, step: Step) -> str:
    template = step.name or step.run
    if template is None or template.is_literal:
        return bench.log.mask(step.display_name)
    try:
        text = await bench.evaluate(template.text)
    except EvaluationError:
        return bench.log.mask(step.display_name)
    lines = text.strip().splitlines() or [""]
    return bench.log.mask(lines[0] if step.name is not None else f"Run {lines[0].strip()}")


async def _continues(bench: Bench, number: int, step: Step) -> bool:
    try:
        return await bench.evaluate(lambda scope: flag(step.continue_on_error, scope))
    except EvaluationError as error:
        bench.log.fault(number, f"The template is not valid. `continue-on-error` of the step: {error}")
        return False


def _report(bench: Bench, number: int, conclusion: str, began: float, ending: Ending) -> None:
    bench.log.emit(
        StepFinished(
            at=time.time(),
            job=bench.log.job,
            step=number,
            conclusion=Conclusion(conclusion),
            seconds=time.monotonic() - began,
            exit_code=ending.exit_code,
            summary=bench.log.mask(ending.summary),
        )
    )


async def _attempt(bench: Bench, number: int, step: Step) -> Ending:
    try:
        env = await bench.evaluate(step.env.texts)
        if step.uses is not None:
            inputs = await bench.evaluate(step.with_.texts, env)
            return Ending(outcome=SUCCESS, outputs=await run_action(bench, number, step.uses, inputs))
        return await _run(bench, number, step, env)
    except _FAULTS as error:
        bench.log.fault(number, told(error))
        return Ending(outcome=FAILURE)


async def _run(bench: Bench, number: int, step: Step, env: Mapping[str, str]) -> Ending:
    """A `run` step: script in, lines out, file commands after it, even where it failed."""
    assert step.run is not None
    limit = None
    if step.timeout_minutes is not None:
        limit = await bench.evaluate(lambda scope: timeout_s(step.timeout_minutes, scope, 0.0), env)
    files = StepFiles(number)
    script = Script(
        text=await bench.evaluate(step.run.text, env),
        shell=await _default(bench, step.shell, "shell", env),
        directory=await _default(bench, step.working_directory, "working_directory", env),
        env=_environment(bench, number, step, env, files),
        timeout_s=limit,
    )
    await files.create(bench.guest)
    result = await run_script(bench, number, script)
    left = await files.collect(bench, number, result.outputs)
    outcome = FAILURE if left.failed and result.outcome == SUCCESS else result.outcome
    ending = Ending(outcome=outcome, exit_code=result.exit_code, outputs=result.outputs, summary=left.summary)
    return replace(ending, outcome=CANCELLED) if result.interrupted else ending


def _environment(bench: Bench, number: int, step: Step, env: Mapping[str, str], files: StepFiles) -> dict[str, str]:
    """Workflow, job and GITHUB_ENV, then the step, then what no step can change; PATH with what steps before have added."""
    defaults = default_environment(
        run_facts(bench.order),
        job=bench.job_id,
        runner=bench.runner,
        paths=bench.paths,
        files=files.paths,
        action=action_name(step.id, number, None),
    )
    layers = ({"HOME": HOME, "PATH": PATH}, bench.env, env)
    return step_environment(layers, defaults, added_path=bench.path, path=PATH)


async def _default(bench: Bench, own: Template | None, key: str, env: Mapping[str, str]) -> str:
    """A setting of the step, else of the job's `defaults.run`, else of the workflow's."""
    candidates = (own, getattr(bench.defaults, key), getattr(bench.order.workflow.defaults, key))
    template = next((candidate for candidate in candidates if candidate is not None), None)
    return "" if template is None else await bench.evaluate(template.text, env)
