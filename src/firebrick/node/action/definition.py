"""`action.yml` from where it is: a tree on the host, or a folder in the machine. Whoever wrote it is not trusted, and it has its limits."""

from __future__ import annotations

import asyncio
import posixpath
from pathlib import Path
from typing import Final

from firebrick.guest.client import Files
from firebrick.guest.errors import AgentError, FileMissingError, NotADirectoryInGuestError
from firebrick.node.content import find_content, is_file
from firebrick.node.errors import ActionError, StepError
from firebrick.workflow.action_file import ACTION_FILES, DOCKERFILES, ActionFile, DockerRuns, read_action_file
from firebrick.workflow.problem import Position, WorkflowError
from firebrick.workflow.schema.allowed import ACTION_HOOK_IF
from firebrick.workflow.template import TemplateMap, parse_condition

_LIMIT: Final = 512 << 10
_MOST_PROBLEMS: Final = 20


async def read_from_tree(root: Path, path: str, *, called: str) -> ActionFile:
    """The action in the folder `path` of the tree `root`; links are followed as far as they stay within the tree. Raises ActionError."""
    return await asyncio.to_thread(_read_from_tree, root, path, called)


def _read_from_tree(root: Path, path: str, called: str) -> ActionFile:
    for name in ACTION_FILES:
        file = _within(root, f"{path}/{name}")
        if file is not None:
            with file.open("rb") as content:
                return _parsed(content.read(_LIMIT + 1), f"{called}/{name}")
    for name in DOCKERFILES:
        if _within(root, f"{path}/{name}") is not None:
            return docker_file(name, called)
    raise _missing(called)


def _within(root: Path, path: str) -> Path | None:
    """The file at `path`, unless it is none or leads out of the tree."""
    base = root.resolve()
    try:
        file = (base / path.lstrip("/")).resolve()
        return file if file.is_relative_to(base) and file.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name no file can have, links in a circle
        return None


async def read_from_guest(files: Files, folder: str, *, called: str) -> ActionFile:
    """The action in a folder of a machine. Raises ActionError, AgentError."""
    for name in ACTION_FILES:
        content = await _find_content(files, posixpath.join(folder, name))
        if content is not None:
            return await asyncio.to_thread(_parsed, content, posixpath.join(called, name))
    for name in DOCKERFILES:
        if await _is_file(files, posixpath.join(folder, name)):
            return docker_file(name, called)
    raise _missing(called)


async def _find_content(files: Files, path: str) -> bytes | None:
    """None where there is no such file."""
    try:
        return await find_content(files, path, _LIMIT + 1)
    except (FileMissingError, NotADirectoryInGuestError):
        return None
    except StepError as error:
        raise ActionError(str(error)) from error
    except AgentError as error:
        raise ActionError(f"cannot read {path}: {error}") from error


async def _is_file(files: Files, path: str) -> bool:
    try:
        return await is_file(files, path)
    except (FileMissingError, NotADirectoryInGuestError):
        return False
    except AgentError as error:
        raise ActionError(f"cannot read {path}: {error}") from error


def _parsed(content: bytes, called: str) -> ActionFile:
    if len(content) > _LIMIT:
        raise ActionError(f"cannot read {called}: it has more than {_LIMIT >> 10} KiB")
    try:
        return read_action_file(content, called)
    except WorkflowError as error:
        told = [str(problem) for problem in error.errors[:_MOST_PROBLEMS]]
        more = [f"and {len(error.errors) - len(told)} more"] if len(error.errors) > len(told) else []
        raise ActionError("\n".join([*told, *more]), hint=error.hint) from error


def _missing(called: str) -> ActionError:
    return ActionError(
        f"Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under '{called}'",
        hint="Did you forget to run actions/checkout before running your local action?" if called[:1] == "." else "",
    )


def docker_file(image: str, called: str) -> ActionFile:
    """What an action is of which there is nothing but its image: `Dockerfile`, or `docker://...`."""
    always = parse_condition("always()", Position(), ACTION_HOOK_IF)
    runs = DockerRuns(image=image, pre_if=always, post_if=always, env=TemplateMap())
    return ActionFile(name="", description="", path=called, inputs={}, outputs={}, runs=runs)
