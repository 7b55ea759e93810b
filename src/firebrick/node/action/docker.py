"""An action that is an image: its program, in a machine of its own that has the workspace, and gives it back.

The machine has what an action's container has at GitHub, at the paths it has there. It is root's, as such actions expect. What a program leaves
there but in the workspace and in the files of its commands is gone.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firebrick.guest.client import TreeLimits
from firebrick.guest.errors import ChannelError
from firebrick.image.errors import ImageError
from firebrick.image.oci_config import ImageConfig
from firebrick.machine.errors import MachineError
from firebrick.node.action.inputs import Inputs, action_variables
from firebrick.node.action.use import DockerUse, Phase
from firebrick.node.container.image import ContainerImage
from firebrick.node.content import find_content
from firebrick.node.errors import ActionError, told
from firebrick.node.guest import Guest
from firebrick.node.step.deadline import Deadline, earlier
from firebrick.node.step.intime import in_time
from firebrick.node.step.script import Program, Result, run_program
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_TOP: Final = "/github"
_WORKSPACE, _EVENT = f"{_TOP}/workspace", f"{_TOP}/workflow/event.json"
_HOME, _TEMP, _COMMANDS = f"{_TOP}/home", f"{_TOP}/runner_temp", f"{_TOP}/file_commands"
_COMMAND_FILES: Final = ("GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY")
_COMMAND_LIMIT: Final = (2 << 20) + 1
"""One byte more than is taken of such a file: one that is larger still is refused where it is read."""

_OF_STEP: Final = frozenset({"args", "entrypoint"})
"""What `with` says to the runner and not to the action."""


@dataclass(frozen=True, slots=True)
class Call:
    """How the image is run: None is what the image says itself."""

    entrypoint: str | None
    args: tuple[str, ...] | None
    env: Mapping[str, str]


def own_inputs(inputs: Inputs) -> Inputs:
    """Without what is meant for the runner."""
    return {name: value for name, value in inputs.items() if name.lower() not in _OF_STEP}


async def find_call(bench: Bench, use: DockerUse, phase: Phase, inputs: Inputs) -> Call:
    """What the step says, else the action's file. `bench` is that of the action: its inputs are in the expressions. Raises EvaluationError,
    ActionError."""
    runs, said = use.runs, {name.lower(): value for name, value in inputs.items()}
    entrypoint = {
        Phase.PRE: runs.pre_entrypoint,
        Phase.MAIN: said.get("entrypoint") or runs.entrypoint,
        Phase.POST: runs.post_entrypoint,
    }[phase]
    args: tuple[str, ...] | None = None
    if said.get("args"):
        args = _words(said["args"])
    elif runs.args:
        budget = Budget(MAX_TOGETHER)
        args = tuple([await bench.evaluate(partial(template.text, budget=budget)) for template in runs.args])
    return Call(entrypoint, args, await bench.evaluate(runs.env.texts))


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ActionError(f"cannot read `args` of the step: {error}") from error


async def run_docker(
    bench: Bench,
    number: int,
    use: DockerUse,
    call: Call,
    *,
    inputs: Inputs,
    env: Mapping[str, str],
    deadline: Deadline | None,
) -> Result:
    """Run the image's program. `env` is what a script would have; the variables that lead to the services for actions are those of its own machine.

    Raises ActionError, ContainerError, AgentError, TreeError."""
    name = _called(use)
    try:
        return await _run(bench, number, use, call, name, inputs, env, deadline)
    except (ImageError, MachineError) as error:
        raise ActionError(f"cannot run the image {name}: {told(error)}") from error
    except ChannelError as error:  # if it is the machine of the job that is lost, the next step says so
        raise ActionError(f"the machine of the image {name} was lost: {error}") from error


def _called(use: DockerUse) -> str:
    if not _has_dockerfile(use):
        return use.runs.image.removeprefix("docker://")
    from firebrick.node.dockerfile.source import called_of

    return called_of(use)


async def _run(
    bench: Bench,
    number: int,
    use: DockerUse,
    call: Call,
    name: str,
    inputs: Inputs,
    env: Mapping[str, str],
    deadline: Deadline | None,
) -> Result:
    image = await _image(bench, number, use, name, deadline)
    argv = _argv(call, image.config, name)
    async with (
        bench.supplies.companions.lend(image, f"action {name}") as loan,
        bench.supplies.companions.offer(loan.guest) as runtime,
    ):
        await in_time(bench, deadline, _carry_in(bench, loan.guest, env, loan.scratch / "in"))
        program = Program(
            argv=argv,
            directory=_WORKSPACE,
            env={
                **image.config.env,
                **call.env,
                **_translated(env),
                **runtime,
                **action_variables(use, own_inputs(inputs)),
            },
            deadline=deadline,
        )
        result = await run_program(replace(bench, guest=loan.guest), number, program, use.state)
        if not result.interrupted:
            await _carry_out(bench, loan.guest, env, loan.scratch / "out")
        return result


def _has_dockerfile(use: DockerUse) -> bool:
    return not use.runs.image.startswith("docker://")


async def _image(bench: Bench, number: int, use: DockerUse, name: str, deadline: Deadline | None) -> ContainerImage:
    if not _has_dockerfile(use):
        return await in_time(bench, deadline, bench.supplies.companions.image(name))
    if use.built is None:
        limit = Deadline.after(bench.settings.build_minutes * 60, bench.title)
        # Imported here, as above: a run without Dockerfiles shall not wait for their language.
        from firebrick.node.dockerfile.action import built_image

        use.built = await in_time(bench, earlier(deadline, limit), built_image(bench, number, use))
    return use.built


def _argv(call: Call, config: ImageConfig, name: str) -> tuple[str, ...]:
    if call.entrypoint:
        argv = (call.entrypoint, *(call.args or ()))
    else:
        argv = (*(config.entrypoint or ()), *(call.args if call.args is not None else config.command or ()))
    if not argv:
        raise ActionError(f"the image {name} does not say what to run", hint="Give the step `with: entrypoint:`.")
    return argv


def _translated(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a step with the paths of the machine of the action. PATH is the image's: the job's means nothing there."""
    translated = {name: value for name, value in env.items() if name != "PATH"}
    paths = {
        "HOME": _HOME,
        "GITHUB_WORKSPACE": _WORKSPACE,
        "GITHUB_EVENT_PATH": _EVENT,
        "RUNNER_TEMP": _TEMP,
        "RUNNER_WORKSPACE": _TOP,
    }
    commands = {name: _command_file(env[name]) for name in _COMMAND_FILES}
    return {**translated, **paths, **commands}


def _command_file(path: str) -> str:
    return f"{_COMMANDS}/{posixpath.basename(path)}"


async def _carry_in(bench: Bench, guest: Guest, env: Mapping[str, str], scratch: Path) -> None:
    """The workspace, the event and empty files for commands. The workspace is found by its path in the job, too."""
    limits = TreeLimits(bytes=bench.settings.source_limit_mib << 20)
    await bench.guest.download(bench.paths.workspace, scratch, limits=limits)
    for directory in (_HOME, _TEMP, _COMMANDS, posixpath.dirname(bench.paths.workspace)):
        await guest.files.mkdir(directory, parents=True)
    await guest.upload(scratch, _WORKSPACE, uid=0, gid=0)
    await guest.files.symlink(bench.paths.workspace, _WORKSPACE)
    await guest.files.write(_EVENT, await bench.guest.files.read(bench.paths.event), parents=True)
    for name in _COMMAND_FILES:
        await guest.files.write(_command_file(env[name]), b"")


async def _carry_out(bench: Bench, guest: Guest, env: Mapping[str, str], scratch: Path) -> None:
    """What the program made of them, in the place of what was there."""
    limits = TreeLimits(bytes=bench.settings.source_limit_mib << 20)
    await guest.download(_WORKSPACE, scratch, limits=limits)
    await bench.guest.files.remove(bench.paths.workspace, recursive=True, missing_ok=True)
    await bench.guest.upload(scratch, bench.paths.workspace, uid=0, gid=0)
    for name in _COMMAND_FILES:
        content = await find_content(guest.files, _command_file(env[name]), _COMMAND_LIMIT)
        await bench.guest.files.write(env[name], content or b"")
