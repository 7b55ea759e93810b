"""What a step starts in its machine: in its environment, with files for its commands, which are read when it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from firebrick.guest.errors import PreparationError
from firebrick.node.context import HOME, PATH, run_facts
from firebrick.node.step.bench import Bench, place_context
from firebrick.node.step.deadline import Deadline
from firebrick.node.step.filecommand import StepFiles
from firebrick.node.step.script import Result, Script, run_script
from firebrick.workflow.context import default_environment, step_environment
from firebrick.workflow.outcome import CANCELLED, FAILURE, SUCCESS
from firebrick.workflow.shell import find_shell
from firebrick.workflow.syntax import Step
from firebrick.workflow.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a phase ended. `outcome` is before `continue-on-error`, `conclusion` after it."""

    outcome: str
    conclusion: str = ""
    exit_code: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


async def run_step_script(
    bench: Bench, number: int, step: Step, env: Mapping[str, str], deadline: Deadline | None
) -> Ending:
    """The script of a `run` step; `env` is the step's own. Raises EvaluationError, ShellError, AgentError."""
    assert step.run is not None
    text = await bench.evaluate(step.run.text, env)
    shell = await _default(bench, step.shell, "shell", env)
    directory = await _default(bench, step.working_directory, "working_directory", env)

    script = Script(text=text, shell=find_shell(shell), directory=directory, deadline=deadline)

    async def start(environment: Mapping[str, str], files: StepFiles) -> Result:
        return await run_script(bench, number, script, environment, files)

    return await with_files(bench, number, env, start)


async def _default(bench: Bench, own: Template | None, key: str, env: Mapping[str, str]) -> str:
    """A setting of the step, else of the job's `defaults.run`, else of the workflow's; these are nothing to the steps of an action."""
    candidates = [own]
    if bench.caller is None:
        candidates += [getattr(bench.defaults, key), getattr(bench.order.workflow.defaults, key)]
    template = next((candidate for candidate in candidates if candidate is not None), None)
    return "" if template is None else await bench.evaluate(template.text, env)


Start = Callable[[Mapping[str, str], StepFiles], Awaitable[Result]]
"""Makes the files, and runs a program with this environment. Raises PreparationError where they could not be made."""


async def with_files(bench: Bench, number: int, env: Mapping[str, str], start: Start) -> Ending:
    """Start a program with files for its commands; they are read after it, even where it failed."""
    files, bench.variables.spare = StepFiles(bench.variables.spare), ""
    environment = _environment(bench, env, files)
    try:
        result = await start(environment, files)
    except PreparationError:
        if not files.give_up_spare():
            raise
        result = await start(environment, files)  # a step has removed the spare ones
    left = await files.collect(bench, number, result.outputs, result.state, result.listing)
    bench.variables.spare = files.directory if files.untouched else ""
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
        runner=bench.facts.runner,
        paths=bench.paths,
        files=files.paths,
        action=bench.action,
    )
    given: Mapping[str, str] = {}
    if bench.caller is not None:
        given = bench.caller.env
        defaults |= {f"GITHUB_{name.upper()}": value for name, value in place_context(bench.caller.place).items()}
    machine = {"HOME": HOME, "PATH": PATH, **bench.facts.image_env}
    return step_environment((machine, bench.env, given, env), defaults, added_path=bench.path, path=machine["PATH"])
