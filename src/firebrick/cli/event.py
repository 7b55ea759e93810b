"""The event a workflow is asked about on the command line: its payload from a file, or one made up from what git says of the sources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from firebrick.cli.errors import UsageError
from firebrick.node.order import Source
from firebrick.workflow.event.event import Event, pushed_paths
from firebrick.workflow.event.inputs import Given, InputError, dispatch_inputs, read_inputs
from firebrick.workflow.expression.value import Value
from firebrick.workflow.syntax import Workflow

DISPATCH: Final = "workflow_dispatch"
_LARGEST: Final = 25 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWish:
    """`--event`, `--payload`, `--input`, `--var`, `--ref` and `--changed`, checked for their form only. `changed` None: what the payload says; `ref`
    None: that of the sources."""

    name: str | None = None
    payload: Path | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] | None = None
    ref: str | None = None

    @property
    def is_told(self) -> bool:
        """Whether the command line says anything of the event itself."""
        return self.name is not None or self.payload is not None or bool(self.inputs)


@dataclass(frozen=True, slots=True)
class Occasion:
    """The event, the sources as it has them, and the context `inputs`."""

    event: Event
    source: Source
    inputs: Mapping[str, Value]


def read_pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` each; of one name the last. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        name, given, value = word.partition("=")
        if not given or not name:
            raise UsageError(f"{option} {word} is no NAME=VALUE", hint=f"Say {option} {name or 'NAME'}=VALUE.")
        found[name] = value
    return found


def find_occasion(wish: EventWish, workflow: Workflow, source: Source) -> Occasion:
    """Raises UsageError for a payload that cannot be read and inputs that do not fit."""
    name = _event_name(wish, workflow)
    source = _on_ref(wish, source)
    payload = _read_payload(wish.payload) if wish.payload is not None else _made_up(name, source)
    given = _find_inputs(name, payload, wish.inputs, workflow)
    if name == DISPATCH:
        payload = {**payload, "inputs": given.texts}
    changed = wish.changed if wish.changed is not None else pushed_paths(payload)
    event = Event(name=name, payload=payload, changed_paths=changed)
    told = replace(source, ref=event.ref or source.ref, event_name=name, event=payload)
    return Occasion(event, told, given.typed)


def _on_ref(wish: EventWish, source: Source) -> Source:
    """The sources as if another ref was checked out: a branch by its name, or a full ref."""
    if wish.ref is None:
        return source
    if wish.payload is not None:
        raise UsageError("--ref and --payload are both given", hint="The payload says which ref the event is about.")
    ref = wish.ref if wish.ref.startswith("refs/") else f"refs/heads/{wish.ref}"
    return replace(source, ref=ref, event={**source.event, "ref": ref})


def _event_name(wish: EventWish, workflow: Workflow) -> str:
    """The event asked for; else a dispatch where there are inputs; else a push, or the first event the workflow has."""
    if wish.name is not None:
        return wish.name
    if wish.inputs:
        return DISPATCH
    return "push" if "push" in workflow.on else next(iter(workflow.on), "push")


def _read_payload(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read the payload {file}: {error.strerror}") from error
    if len(content) > _LARGEST:
        raise UsageError(f"the payload {file} is larger than {_LARGEST >> 20} MiB")
    hint = "Give the event as the forge sends it."
    try:
        value = json.loads(content)
    except UnicodeDecodeError as error:
        raise UsageError(f"the payload {file} is no JSON: it is not text in UTF-8", hint=hint) from error
    except RecursionError as error:
        raise UsageError(f"the payload {file} is no JSON: it is nested too deep", hint=hint) from error
    except ValueError as error:
        raise UsageError(f"the payload {file} is no JSON: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise UsageError(f"the payload {file} is no JSON object", hint=hint)
    return value


def _made_up(name: str, source: Source) -> dict[str, object]:
    """An event as the current commit would cause it."""
    payload = dict(source.event)
    branch = source.ref.removeprefix("refs/heads/")
    if name in {"pull_request", "pull_request_target"}:
        head, base = {"ref": branch, "sha": source.sha}, {"ref": branch, "sha": source.sha}
        request = {"number": 1, "head": head, "base": base, "merge_commit_sha": source.sha}
        return {**payload, "action": "opened", "number": 1, "pull_request": request}
    if name not in {"push", DISPATCH}:
        payload.pop("after", None)
    return payload


def _find_inputs(name: str, payload: Mapping[str, object], words: Mapping[str, str], workflow: Workflow) -> Given:
    """Those of the payload, and over them those of the command line. A workflow that can only be called is given inputs as a call would."""
    trigger = DISPATCH if name == DISPATCH and DISPATCH in workflow.on else "workflow_call"
    if trigger not in workflow.on or name not in {DISPATCH, "workflow_call"}:
        if words:
            raise UsageError(
                f"{workflow.path} takes no inputs from {name}", hint="Inputs are for `on: workflow_dispatch`."
            )
        return Given()
    sent = payload.get("inputs")
    try:
        return dispatch_inputs(
            read_inputs(workflow.on[trigger]), {**(sent if isinstance(sent, Mapping) else {}), **words}
        )
    except InputError as error:
        raise UsageError(f"the inputs do not fit {workflow.path}:\n{error}", hint=error.hint) from error
