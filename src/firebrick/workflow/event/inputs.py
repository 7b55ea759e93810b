"""Inputs of a workflow: what it declares, and what a dispatch or a call gives, checked, with types and as texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from firebrick.errors import FirebrickError
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
from firebrick.workflow.expression.value import Value, fold, kind, number_text, parse_number, to_text
from firebrick.workflow.template import Template

MAX_DISPATCH_INPUTS = 25
MAX_DISPATCH_CHARACTERS = 65_535

_EMPTY: Mapping[str, Value] = {"boolean": False, "number": 0}


class InputError(FirebrickError):
    """Inputs that do not fit. `mistakes` has a sentence for each."""

    def __init__(self, mistakes: Sequence[str], *, hint: str = "") -> None:
        super().__init__("\n".join(mistakes), hint=hint)
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input a workflow declares. `type` is string, boolean, number, choice or environment; `default` None where there is none, and where it
    is an `expression`, which only a workflow that is called can have."""

    name: str
    type: str = "string"
    required: bool = False
    default: Value = None
    options: tuple[str, ...] = ()
    description: str = ""
    expression: Template | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """`typed` is the context `inputs`; `texts` is `github.event.inputs`, where every value is a string."""

    typed: Mapping[str, Value] = field(default_factory=dict)
    texts: Mapping[str, Value] = field(default_factory=dict)


def read_inputs(trigger: object) -> tuple[Input, ...]:
    """What `on.workflow_dispatch` or `on.workflow_call`, as a `Workflow` has it, declares."""
    declared = trigger.get("inputs") if isinstance(trigger, Mapping) else None
    if not isinstance(declared, Mapping):
        return ()
    return tuple(_read(name, entry if isinstance(entry, Mapping) else {}) for name, entry in declared.items())


def _read(name: str, entry: Mapping[str, object]) -> Input:
    default, options = entry.get("default"), entry.get("options")
    is_literal = not isinstance(default, Template) or default.is_literal
    return Input(
        name=name,
        type=to_text(_scalar(entry.get("type"))) or "string",
        required=entry.get("required") is True,
        default=_scalar(default) if is_literal else None,
        options=tuple(to_text(_scalar(option)) for option in options) if isinstance(options, tuple) else (),
        description=to_text(_scalar(entry.get("description"))),
        expression=default if isinstance(default, Template) and not is_literal else None,
    )


def _scalar(value: object) -> Value:
    """A plain value of a file, or a template without expressions."""
    if isinstance(value, Template):
        value = value.parts[0] if value.parts else None
    return value if isinstance(value, bool | int | float | str) else None


def dispatch_inputs(declared: Iterable[Input], given: Mapping[str, object]) -> Given:
    """The inputs of a run started by hand, names without case. Raises InputError with all mistakes at once."""
    known = tuple(declared)
    mistakes = _unexpected(known, given)
    if sum(len(name) + len(str(value)) for name, value in given.items()) > MAX_DISPATCH_CHARACTERS:
        mistakes.append(f"inputs are too large: more than {MAX_DISPATCH_CHARACTERS} characters")
    values = {fold(name): value for name, value in given.items()}
    typed: dict[str, Value] = {}
    for one in known:
        value, mistake = _dispatched(one, values.get(fold(one.name)))
        mistakes += [mistake] if mistake else []
        typed[one.name] = value
    if mistakes:
        names = ", ".join(_signature(one) for one in known)
        raise InputError(mistakes, hint=f"The workflow takes {names}." if known else "The workflow takes no inputs.")
    return Given(typed, {name: to_text(value) for name, value in typed.items()})


def _signature(one: Input) -> str:
    words = f"{one.type}: {' or '.join(one.options)}" if one.options else one.type
    return f"{one.name} ({words}{', required' if one.required else ''})"


def _unexpected(known: Iterable[Input], given: Iterable[str]) -> list[str]:
    names = {fold(one.name) for one in known}
    strange = [name for name in given if fold(name) not in names]
    return [f"Unexpected inputs provided: {json.dumps(strange)}"] if strange else []


def _dispatched(one: Input, value: object) -> tuple[Value, str]:
    """The value with its type, and what is wrong with it."""
    if value is None or (value == "" and one.type != "string"):
        if one.required and one.default is None:
            return None, f"Required input '{one.name}' not provided"
        return _default(one), ""
    if one.required and value == "" and one.default is None:
        return None, f"Required input '{one.name}' not provided"
    return _converted(one, value)


def _default(one: Input) -> Value:
    if one.default is None:
        return _EMPTY.get(one.type, "")
    value, _ = _converted(one, one.default)
    return value


def _converted(one: Input, value: object) -> tuple[Value, str]:
    said = f"Provided value '{_shown(value)}' for input '{one.name}'"
    if not (value is None or isinstance(value, bool | int | float | str)):
        return None, f"{said} is not a {one.type}"
    if one.type not in _CONVERSIONS:
        text = to_text(value)
        fits = one.type != "choice" or text in one.options
        return (text, "") if fits else (None, f"{said} not in the list of allowed values")
    converted = _CONVERSIONS[one.type](value)
    return (converted, "") if converted is not None else (None, f"{said} is not a {one.type}")


def _shown(value: object) -> str:
    text = to_text(value) if isinstance(value, bool | int | float | str) else type(value).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."


def _to_boolean(value: Value) -> Value:
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(to_text(value).lower())


def _to_number(value: Value) -> Value:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    number = parse_number(to_text(value))
    return number if number_text(number) != "NaN" and to_text(value).strip() else None


_CONVERSIONS: Mapping[str, Callable[[Value], Value]] = {"boolean": _to_boolean, "number": _to_number}

_CALL_KINDS = {"boolean": "Boolean", "number": "Number", "string": "String"}


def call_mistakes(declared: Sequence[Input], given: Iterable[str]) -> list[str]:
    """What is wrong with the names of the inputs of a call."""
    names = {fold(name) for name in given}
    known = {fold(one.name) for one in declared}
    mistakes = [
        f"Invalid input, {name} is not defined in the referenced workflow." for name in given if fold(name) not in known
    ]
    return mistakes + [
        f"Input {one.name} is required, but not provided while calling."
        for one in declared
        if one.required and fold(one.name) not in names
    ]


def call_inputs(declared: Sequence[Input], given: Mapping[str, Value], scope: Scope) -> dict[str, Value]:
    """The context `inputs` of a called workflow. A number or a boolean is no string and the other way round, but scalars become strings.
    `scope` has what defaults may ask for: `github` and `vars`.

    Raises InputError with all mistakes at once, EvaluationError for a default."""
    values = {fold(name): value for name, value in given.items()}
    mistakes = call_mistakes(declared, given)
    budget = Budget(MAX_TOGETHER)
    inputs: dict[str, Value] = {}
    for one in declared:
        value = values.get(fold(one.name))
        if value is None:
            value = one.expression.value(scope, budget) if one.expression is not None else one.default
        if value is None:
            value = _EMPTY.get(one.type, "")
        elif mistake := type_mistake(one, value):
            mistakes.append(mistake)
        inputs[one.name] = to_text(value) if one.type == "string" else value
    if mistakes:
        raise InputError(mistakes)
    return inputs


def type_mistake(one: Input, value: Value) -> str:
    """Why a value is not of the type of an input of a called workflow; empty where it is."""
    found, wanted = kind(value), _CALL_KINDS[one.type]
    if found == wanted or (wanted == "String" and found in {"Boolean", "Number"}):
        return ""
    return f"Unexpected value '{_shown(value)}' for the input '{one.name}', which is a {one.type}"
