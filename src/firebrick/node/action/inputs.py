"""What an action is given: the `with` of its step, and for the rest the defaults of its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from firebrick.node.action.use import DockerUse, JavaScriptUse
from firebrick.workflow.action_file import ActionFile
from firebrick.workflow.command.command import Message
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
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
    budget = Budget(MAX_TOGETHER)
    for name, known in file.inputs.items():
        if name not in inputs:
            default = known.default
            inputs[name] = "" if default is None else await bench.evaluate(partial(default.text, budget=budget), env)
    return inputs


def warn_of_native_inputs(bench: Bench, number: int, valid: Iterable[str], inputs: Inputs) -> None:
    """The same of an action the node does itself, which has the `valid` ones."""
    for text in _unexpected(inputs, tuple(valid)):
        bench.log.annotate(number, _warning(text))


def warn_of_inputs(bench: Bench, number: int, step: Step, file: ActionFile, inputs: Inputs) -> None:
    """What is not right with what is given, in the log; nothing of it fails the step."""
    for text in _warnings(step, file, inputs):
        bench.log.annotate(number, _warning(text))
    for name, known in file.inputs.items():
        if known.required and not inputs[name]:
            bench.log.line(number, f"##[warning]Input required and not supplied: {name}", "node")


def _warnings(step: Step, file: ActionFile, inputs: Inputs) -> Iterator[str]:
    yield from _unexpected(inputs, tuple(file.inputs))
    given = {name.lower() for name in step.with_.entries}
    for name, known in file.inputs.items():
        if known.deprecation and name.lower() in given:
            yield f"Input '{name}' has been deprecated with message: {known.deprecation}"


def _unexpected(inputs: Inputs, valid: tuple[str, ...]) -> Iterator[str]:
    unexpected = "', '".join(name for name in inputs if name not in valid)
    if unexpected:
        known = "', '".join(valid)
        yield f"Unexpected input(s) '{unexpected}', valid inputs are ['{known}']"


def _warning(text: str) -> Message:
    return Message(level="warning", message=text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def action_variables(use: JavaScriptUse | DockerUse, inputs: Inputs) -> dict[str, str]:
    """What an action has besides what a script would: `INPUT_*` (in upper case, a space becoming `_`, and nothing else), what its earlier phases
    left, and which action it is."""
    given = {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()}
    state = {f"STATE_{name}": value for name, value in use.state.items()}
    place = {"GITHUB_ACTION_REPOSITORY": use.place.repository, "GITHUB_ACTION_REF": use.place.ref}
    return {**given, **state, **place}
