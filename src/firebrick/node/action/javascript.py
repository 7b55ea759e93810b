"""A JavaScript action: one of its files in Node.js, in the machine. Whatever version its author names, there is one Node.js."""

from __future__ import annotations

import json
import posixpath
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from firebrick.guest.errors import FileMissingError, NotExecutableError
from firebrick.node.action.inputs import Inputs, action_variables
from firebrick.node.action.use import JavaScriptUse, Phase
from firebrick.node.context import EXTERNALS, TEMP
from firebrick.node.errors import StepError
from firebrick.node.step.deadline import Deadline
from firebrick.node.step.script import Program, Result, run_program

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench
    from firebrick.node.step.filecommand import StepFiles

_NEEDS: Final = f"It needs an image with glibc 2.28 or newer, or one with a program of its own at {EXTERNALS}/bin/node."
_MOST_HANDED: Final = 24 << 10
_TAKE_OVER: Final = b"""\
const file = process.env.FIREBRICK_VARIABLES;
if (file) {
  delete process.env.FIREBRICK_VARIABLES;
  Object.assign(process.env, JSON.parse(require('node:fs').readFileSync(file, 'utf8')));
}
"""


async def run_javascript(
    bench: Bench,
    number: int,
    use: JavaScriptUse,
    phase: Phase,
    *,
    inputs: Inputs,
    env: Mapping[str, str],
    files: StepFiles,
    deadline: Deadline | None,
) -> Result:
    """Run the file of this phase; the action is in its place. `env` is what a script would have; what the action is given comes to it. `files` are made.

    Raises StepError, AgentError."""
    script = use.script(phase)
    assert script is not None
    options, variables = await _handed_over(bench, action_variables(use, inputs))
    program = Program(
        argv=(f"{EXTERNALS}/bin/node", *options, posixpath.normpath(posixpath.join(use.place.path, script))),
        directory=bench.paths.workspace,
        env={**env, **bench.runtime, **variables},
        deadline=deadline,
        before=files.preparation,
        listing=files.directory,
        exit_is_told=False,  # what went wrong, an action says itself
    )
    try:
        return await run_program(bench, number, program, use.state)
    except (FileMissingError, NotExecutableError) as error:
        raise StepError("cannot start Node.js in this machine", hint=_NEEDS) from error


async def _handed_over(bench: Bench, variables: Mapping[str, str]) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The variables as options of Node.js and as variables. Linux starts no program with a variable of 128 KiB, nor the agent one with 64 KiB of
    them, and inputs may be longer: then they are in a file, and become variables when Node.js has started."""
    if sum(len(name) + len(value.encode()) for name, value in variables.items()) <= _MOST_HANDED:
        return (), variables
    place = f"{TEMP}/{uuid.uuid4()}"
    await bench.guest.files.write(f"{place}.json", json.dumps(dict(variables)).encode(), parents=True)
    await bench.guest.files.write(f"{place}.js", _TAKE_OVER, parents=True)
    return ("--require", f"{place}.js"), {"FIREBRICK_VARIABLES": f"{place}.json"}
