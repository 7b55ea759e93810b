"""The node's side of problem matchers: their files, which are in the guest, and the files their problems are in."""

from __future__ import annotations

import posixpath

from firebrick.guest.errors import AgentError, FileMissingError
from firebrick.node.content import find_content, is_file
from firebrick.node.errors import StepError
from firebrick.node.step.bench import Bench
from firebrick.workflow.command.command import Message
from firebrick.workflow.command.matcher import Hit, Matcher, MatcherError, plain
from firebrick.workflow.command.matcher_file import MAX_FILE, parse_matchers

_MAX_PATH = 4096


async def add_matchers(bench: Bench, number: int, path: str) -> None:
    """Look for what the file at `path` describes, from now on and in all steps. A file that is none is an error of the log, and no more."""
    data, matchers = await _read(bench, number, path)
    try:
        bench.matchers.add(matchers)
        bench.note_matchers(data, matchers)
    except MatcherError as error:
        _complain(bench, number, path, str(error))
        return
    added = [matcher.owner for matcher in matchers if matcher.patterns]
    for matcher in matchers:
        if matcher.patterns:
            bench.log.debug(number, f"Added matcher '{matcher.owner}'.")
    if added:
        names = ", ".join(f"'{owner}'" for owner in added)
        bench.log.line(
            number,
            f"Added matchers: {names}. Problem matchers scan action output for known warning or error strings and report these inline.",
        )


async def remove_matchers(bench: Bench, number: int, owner: str, path: str) -> None:
    """Stop looking for what `owner` looks for, or all the owners in the file at `path`."""
    owners = (owner,) if owner else tuple(matcher.owner for matcher in (await _read(bench, number, path))[1])
    removed = bench.matchers.remove(owners)
    if removed:
        bench.log.line(number, "Removed matchers: " + ", ".join(f"'{name}'" for name in removed))


async def problem_message(bench: Bench, hit: Hit, line: str, *, locate: bool) -> Message:
    """The annotation of a problem; the log shows the whole line. Its file is asked for in the guest only where `locate` says so."""
    file = await _locate(bench, hit) if locate and hit.file else ""
    return Message(
        level=hit.severity,
        message=hit.message,
        file=file,
        line=hit.line,
        column=hit.column if hit.line is not None else None,
        shown=plain(line),
    )


async def _locate(bench: Bench, hit: Hit) -> str:
    """The file of a problem relative to the workspace; empty where there is no such file in it."""
    workspace = bench.paths.workspace
    directory = posixpath.join(workspace, posixpath.dirname(hit.from_path))
    path = posixpath.normpath(posixpath.join(directory, hit.file))
    if not path.startswith(f"{workspace}/") or len(path) > _MAX_PATH or "\0" in path:
        return ""
    try:
        found = await is_file(bench.guest.files, path)
    except AgentError:
        return ""
    return path[len(workspace) + 1 :] if found else ""


async def _read(bench: Bench, number: int, path: str) -> tuple[bytes, tuple[Matcher, ...]]:
    """A file of the guest and the matchers in it; none where it is none, and the log says why."""
    absolute = posixpath.join(bench.paths.workspace, path)
    try:
        bench.matchers.count_file()
        data = await find_content(bench.guest.files, absolute, MAX_FILE + 1)
        if data is None:
            return b"", _complain(bench, number, path, "It is no file.")
        return data, parse_matchers(data)
    except FileMissingError:
        return b"", _complain(bench, number, path, "There is no such file.")
    except (AgentError, StepError, MatcherError) as error:
        return b"", _complain(bench, number, path, str(error))


def _complain(bench: Bench, number: int, path: str, reason: str) -> tuple[()]:
    bench.log.fault(number, f"Cannot use the problem matchers of '{path[:_MAX_PATH]}'. {reason}")
    return ()
