"""What a run was asked, kept in its directory, so that it can be gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from firebrick.cli.errors import UsageError
from firebrick.cli.order import Wish
from firebrick.node.kept.rerun import Rerun
from firebrick.node.order import EnvironmentOrder, RunOrder
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.syntax import Workflow

VERSION: Final = 1
_FILE: Final = "wish.json"
_LARGEST: Final = 8 << 20


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """`wish` is without its secrets, of which the names are in `secrets`. `text` is the workflow file as it was, None where there was none;
    `rerun` says what the run went on from, empty where it began at its beginning."""

    version: int
    wish: Wish
    path: str
    text: str | None
    secrets: tuple[str, ...]
    collect: tuple[str, ...] = ()
    rerun: str = ""
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What a run that goes on has besides its wish."""

    rerun: Rerun
    workflow: Workflow | None
    collect: tuple[str, ...]


def remember(directory: Path, wish: Wish, order: RunOrder) -> None:
    """Write down what was asked for, so that only its owner can read it."""
    rerun = order.rerun
    asked = Asked(
        version=VERSION,
        wish=_anywhere(wish),
        path=order.workflow.path,
        text=_text(wish, order),
        secrets=secret_names(order.secrets, order.environments),
        collect=order.collect,
        rerun=f"{rerun.entry.record.run} {rerun.entry.record.job} {rerun.entry.record.label}" if rerun else "",
        command=rerun.command if rerun else None,
    )
    fd = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(asked, enc_hook=_encoded))


def recall(directory: Path) -> Asked:
    """What the run of this directory was asked. Raises UsageError where that is not known any more."""
    try:
        with (directory / _FILE).open("rb") as file:
            asked = msgspec.json.decode(file.read(_LARGEST), type=Asked, dec_hook=_decoded)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"cannot go on with {directory.name}: what it was asked is not known: {error}",
            hint="The directories of the last runs of `firebrick run` are kept; builds of a server are run again by it: --server.",
        ) from error
    if asked.version != VERSION:
        raise UsageError(f"cannot go on with {directory.name}: it was written by another release")
    return asked


def workflow_of(asked: Asked) -> Workflow | None:
    """The workflow as it was; None where it is made from the wish. Raises WorkflowError."""
    return None if asked.text is None else read_workflow(asked.text, asked.path)


def _anywhere(wish: Wish) -> Wish:
    """As it means the same in another directory; without secrets."""
    event = replace(wish.event, payload=wish.event.payload and wish.event.payload.absolute())
    environments = {name: replace(each, secrets={}) for name, each in wish.environments.items()}
    return replace(wish, repository=wish.repository.absolute(), event=event, secrets={}, environments=environments)


def secret_names(secrets: Iterable[str], environments: Mapping[str, EnvironmentOrder]) -> tuple[str, ...]:
    """What has to be given again: `NAME`, or `ENVIRONMENT:NAME`."""
    scoped = [f"{name}:{secret}" for name, each in environments.items() for secret in each.secrets]
    return tuple(sorted([*secrets, *scoped]))


def _text(wish: Wish, order: RunOrder) -> str | None:
    """The file the workflow was read from a moment ago. A workflow made of a command, or detected, has none."""
    if wish.command is not None:
        return None
    for path in (order.source.path / order.workflow.path, Path(order.workflow.path)):
        if path.is_file():
            return path.read_bytes().decode("utf-8-sig", errors="replace")
    return None


def _encoded(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def _decoded(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"no JSON for {kind.__name__}")
