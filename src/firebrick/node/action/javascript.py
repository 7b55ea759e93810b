"""A JavaScript action: one of its files in Node.js, in the machine. Whatever version its author names, there is one Node.js."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING

from firebrick.node.action.inputs import Inputs, input_variables
from firebrick.node.action.use import JavaScriptUse, Phase
from firebrick.node.context import EXTERNALS
from firebrick.node.deadline import Deadline
from firebrick.node.script import Program, Result, run_program

if TYPE_CHECKING:
    from firebrick.node.bench import Bench


async def run_javascript(
    bench: Bench,
    number: int,
    use: JavaScriptUse,
    phase: Phase,
    *,
    inputs: Inputs,
    env: Mapping[str, str],
    deadline: Deadline | None,
) -> Result:
    """Run the file of this phase. `env` is what a script would have; what the action is given comes to it. Raises ActionError, AgentError, TreeError."""
    script = use.script(phase)
    assert script is not None
    await bench.actions.place(use.place, bench.guest)
    await bench.actions.place_node(bench.guest)
    program = Program(
        argv=(f"{EXTERNALS}/bin/node", posixpath.normpath(posixpath.join(use.place.path, script))),
        directory=bench.paths.workspace,
        env={**env, **bench.runtime, **_own_variables(use, inputs)},
        deadline=deadline,
    )
    return await run_program(bench, number, program, use.state)


def _own_variables(use: JavaScriptUse, inputs: Inputs) -> dict[str, str]:
    state = {f"STATE_{name}": value for name, value in use.state.items()}
    place = {"GITHUB_ACTION_REPOSITORY": use.place.repository, "GITHUB_ACTION_REF": use.place.ref}
    return {**input_variables(inputs), **state, **place}
