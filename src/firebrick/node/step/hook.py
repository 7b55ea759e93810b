"""What whoever runs the node has a job do before its first step and after its last one: scripts in the guest, as ACTIONS_RUNNER_HOOK_JOB_STARTED
and ACTIONS_RUNNER_HOOK_JOB_COMPLETED name them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from firebrick.guest.errors import AgentError
from firebrick.node.content import find_content
from firebrick.node.errors import StepError, told
from firebrick.node.log import NODE_STEP
from firebrick.node.step.bench import Bench
from firebrick.node.step.filecommand import StepFiles
from firebrick.node.step.launch import with_files
from firebrick.node.step.script import Program, Result, run_program
from firebrick.workflow.outcome import FAILURE, StepOutcome
from firebrick.workflow.shell import BUILT_IN, DEFAULT

_ENVIRONMENT: Final = "/etc/environment"
_MOST_ENVIRONMENT: Final = 64 << 10


class Hook(StrEnum):
    """By the variable that names its script."""

    STARTED = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
    COMPLETED = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"


async def run_hook(bench: Bench, hook: Hook) -> None:
    """Run the script, if one is named by the node's settings or by `/etc/environment` of the image. It has what a step has, its lines belong to
    no step, and where it fails the job has failed. Raises what loses the job: ChannelError, MachineError."""
    bench.step_end, bench.condition = bench.cancellation.next_end, None
    try:
        path = _configured(bench, hook) or (await _environment_of_image(bench)).get(hook, "")
        if path:
            bench.log.node(f"{hook}: {path}")
            await _run(bench, path)
    except (AgentError, StepError) as error:
        bench.log.fault(NODE_STEP, told(error))
        bench.record("", StepOutcome(FAILURE, FAILURE))


def _configured(bench: Bench, hook: Hook) -> str:
    return bench.settings.job_started if hook is Hook.STARTED else bench.settings.job_completed


async def _environment_of_image(bench: Bench) -> dict[str, str]:
    """The variables of the file; none where there is no file."""
    try:
        content = await find_content(bench.guest.files, _ENVIRONMENT, _MOST_ENVIRONMENT)
    except AgentError:
        return {}
    text = (content or b"").decode(errors="replace")
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.split("\n"))
    return {name.strip(): value.strip().strip("\"'") for name, equals, value in pairs if equals}


async def _run(bench: Bench, path: str) -> None:
    if not path.startswith("/"):
        raise StepError(f"the hook '{path}' cannot be run", hint="Name a file of the machine by its absolute path.")
    shell = BUILT_IN["pwsh"] if posixpath.splitext(path)[1] == ".ps1" else DEFAULT

    async def start(environment: Mapping[str, str], files: StepFiles) -> Result:
        if not await bench.guest.files.exists(path):
            raise StepError(f"the hook '{path}' cannot be run: there is no such file in the machine")
        program = Program(
            argv=shell.argv(path),
            directory=bench.paths.workspace,
            env=environment,
            deadline=None,
            before=files.preparation,
            listing=files.directory,
        )
        return await run_program(bench, NODE_STEP, program)

    ending = await with_files(bench, NODE_STEP, {}, start)
    bench.record("", StepOutcome(ending.outcome, ending.outcome))
