"""What an action is given: the `with` of its step, and for the rest the defaults of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from firebrick.node.action.use import DockerUse, JavaScriptUse
from firebrick.workflow.action_file import ActionFile
from firebrick.workflow.command.command import Message
from firebrick.workflow.syntax import Step

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

Inputs = dict[str, str]

_LONGEST: Final = 4000


async def native_inputs(bench: Bench, step: Step, env: Mapping[str, str]) -> Inputs:
    """By their names in lower case. Raises EvaluationError."""
    given = await bench.evaluate(step.with_.texts, env)
    return {name.lower(): value for name, value in given.items()}


async def action_inputs(bench: Bench, step: Step, file: ActionFile, env: Mapping[str, str]) -> Inputs:
    """By the names of the file, and what it does not know as it is written. Raises EvaluationError."""
    given = await bench.evaluate(step.with_.texts, env)
    spelled = {name.lower(): name for name in file.inputs}
    inputs = {spelled.get(name.lower(), name): value for name, value in given.items()}
    for name, known in file.inputs.items():
        if name not in inputs:
            inputs[name] = "" if known.default is None else await bench.evaluate(known.default.text, env)
    return inputs


def warn_of_inputs(bench: Bench, number: int, step: Step, file: ActionFile, inputs: Inputs) -> None:
    """What is not right with what is given, in the log; nothing of it fails the step."""
    for text in _warnings(step, file, inputs):
        message = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        bench.log.annotate(number, Message(level="warning", message=message))
    for name, known in file.inputs.items():
        if known.required and not inputs[name]:
            bench.log.line(number, f"##[warning]Input required and not supplied: {name}", "node")


def _warnings(step: Step, file: ActionFile, inputs: Inputs) -> Iterator[str]:
    unexpected = "', '".join(name for name in inputs if name not in file.inputs)
    if unexpected:
        valid = "', '".join(file.inputs)
        yield f"Unexpected input(s) '{unexpected}', valid inputs are ['{valid}']"
    given = {name.lower() for name in step.with_.entries}
    for name, known in file.inputs.items():
        if known.deprecation and name.lower() in given:
            yield f"Input '{name}' has been deprecated with message: {known.deprecation}"


def action_variables(use: JavaScriptUse | DockerUse, inputs: Inputs) -> dict[str, str]:
    """What an action has besides what a script would: `INPUT_*` (in upper case, a space becoming `_`, and nothing else), what its earlier phases
    left, and which action it is."""
    given = {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}
    state = {f"STATE_{name}": value for name, value in use.state.items()}
    place = {"GITHUB_ACTION_REPOSITORY": use.place.repository, "GITHUB_ACTION_REF": use.place.ref}
    return {**given, **state, **place}
