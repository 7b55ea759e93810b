"""The event of a build: which commit it is about, which files it changes, and what is made up where nobody sent it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from firebrick.forge.address import Address
from firebrick.forge.clone import Checkout
from firebrick.server.errors import RequestError
from firebrick.server.plan import DISPATCH
from firebrick.server.record import BuildRequest
from firebrick.workflow.event.event import Event, pushed_paths, text_at

_DEEPEST: Final = 100
_LARGEST: Final = 1 << 63
_REQUEST: Final = "pull_request"
_PARENT: Final = "^"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def check_payload(payload: Mapping[str, Any]) -> None:
    """Raises RequestError for a payload that is nested deeper than values of the language can be, or that cannot be kept: texts that are no
    Unicode, numbers of more than 64 bits."""
    try:
        msgspec.json.encode(payload)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestError("the payload has a text that is no Unicode") from error
    level: list[Any] = [payload]
    for _ in range(_DEEPEST):
        if any(isinstance(value, int) and abs(value) >= _LARGEST for value in level):
            raise RequestError("the payload has a number of more than 64 bits")
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise RequestError(f"the payload is nested more than {_DEEPEST} deep")


def decode_payload(content: bytes | None) -> dict[str, Any] | None:
    """A payload as it was kept."""
    return None if content is None else msgspec.json.decode(content, type=dict[str, Any])


def _inside(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def aimed(request: BuildRequest, payload: Mapping[str, Any] | None) -> BuildRequest:
    """The request with the branch and the commit its event is about. Raises RequestError where both are given and are not the same."""
    if not request.event or payload is None:
        return request
    event = Event(name=request.event, payload=payload)
    if event.deletes:
        raise RequestError("the push deleted its ref: there is nothing left to build")
    commit = event.sha if event.name == "push" else ""
    if request.branch and event.ref and request.branch not in (event.ref, event.ref.split("/", 2)[-1]):
        raise RequestError("the payload is about another ref than `branch`", hint="Leave `branch` out.")
    if request.commit and commit and not commit.startswith(request.commit):
        raise RequestError("the payload is about another commit than `commit`", hint="Leave `commit` out.")
    return replace(request, branch=event.ref or request.branch, commit=commit or request.commit)


def comparison(request: BuildRequest, payload: Mapping[str, Any] | None) -> str:
    """The commit that the built one is to be compared with, as `clone` has it; empty where no filter asks for files."""
    before = text_at(payload, "before")
    if request.event == "push" and _COMMIT.fullmatch(before):
        return before
    return _PARENT if request.event in ("push", _REQUEST) else ""


def find_event(
    request: BuildRequest, payload: Mapping[str, Any] | None, checkout: Checkout, address: Address
) -> Event | None:
    """The event of a build that has one. A payload that was not sent is made up of what is built."""
    if not request.event:
        return None
    told = payload if payload is not None else _made_up(request, checkout, address)
    return Event(name=request.event, payload=told, changed_paths=_changed(request, told, checkout))


def _changed(request: BuildRequest, payload: Mapping[str, Any], checkout: Checkout) -> tuple[str, ...] | None:
    """What git says; else what the payload says; the first parent of a proposed merge is what it is merged into."""
    if request.event == _REQUEST:
        return checkout.changed if checkout.ref.endswith("/merge") else None
    return checkout.changed if checkout.changed is not None or request.event != "push" else pushed_paths(payload)


def _made_up(request: BuildRequest, checkout: Checkout, address: Address) -> dict[str, Any]:
    name = address.repository
    payload: dict[str, Any] = {
        "ref": checkout.ref,
        "repository": {"full_name": name, "name": name.rpartition("/")[2]},
    }
    if request.event == "push":
        payload["after"] = checkout.sha
    if request.event == DISPATCH:
        payload["workflow"] = request.workflow
    return payload
