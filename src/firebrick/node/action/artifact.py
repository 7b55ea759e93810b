"""`actions/upload-artifact` and `actions/download-artifact`: between the machine and the artifacts of the run."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from firebrick.node.action.inside import inside
from firebrick.node.errors import StepError
from firebrick.node.glob import Found, Search, find_files, parse_searches
from firebrick.workflow.command.command import Message

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench

_TRUE: Final = ("true", "yes", "1")


async def upload_artifact(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    name = inputs.get("name") or "artifact"
    searches = parse_searches(inputs.get("path", ""), bench.paths.workspace)
    if not searches:
        raise StepError(
            "`actions/upload-artifact` needs `path`", hint="Name files, directories or patterns, one a line."
        )
    hidden = inputs.get("include-hidden-files", "").lower() in _TRUE
    found = await find_files(bench.guest.files, searches, hidden=hidden)
    if not found:
        _none_found(bench, number, inputs)
        return {}
    size = await bench.supplies.shelf.store(
        bench.log.job,
        name,
        bench.guest.files,
        found,
        root=_root(searches, found),
        overwrite=inputs.get("overwrite", "").lower() in _TRUE,
    )
    bench.log.line(number, f"Artifact {name}: {len(found)} files, {size / 1024:.0f} KiB", "node")
    return {"artifact-id": name}


def _none_found(bench: Bench, number: int, inputs: Mapping[str, str]) -> None:
    message = f"No files were found with the provided path: {inputs.get('path', '')}. No artifacts will be uploaded."
    match inputs.get("if-no-files-found") or "warn":
        case "ignore":
            bench.log.line(number, message, "node")
        case "warn":
            bench.log.annotate(number, Message(level="warning", message=message))
        case "error":
            raise StepError(message)
        case other:
            raise StepError(f"`if-no-files-found` is {other!r}", hint="It is warn, error or ignore.")


def _root(searches: list[Search], found: list[Found]) -> str:
    """Above which directory paths are not kept: the one the pattern begins at, the common one of several, that of a single file."""
    bases = [search.base for search in searches if not search.pattern.negated]
    if len(bases) == 1 and found[0].path == bases[0]:
        return posixpath.dirname(bases[0])
    root = posixpath.commonpath(bases)
    return posixpath.dirname(root) if any(file.path == root for file in found) else root


async def download_artifact(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    """One artifact of this run into `path`; of several each into a directory of its name, unless `merge-multiple` is set."""
    for unsupported in ("run-id", "repository", "artifact-ids"):
        if inputs.get(unsupported):
            raise StepError(f"cannot download with `{unsupported}`: only artifacts of this run are supported yet")
    target = inside(bench.paths.workspace, inputs.get("path") or ".")
    name, pattern = inputs.get("name", ""), inputs.get("pattern") or "*"
    if name and name not in bench.supplies.shelf.names:
        raise StepError(
            f"Unable to download artifact(s): Artifact not found for name: {name}",
            hint=_there_are(bench.supplies.shelf.names),
        )
    wanted = [name] if name else [each for each in bench.supplies.shelf.names if fnmatchcase(each, pattern)]
    together = bool(name) or inputs.get("merge-multiple", "").lower() in _TRUE
    await bench.guest.files.mkdir(target, parents=True)
    for each in wanted:
        into = target if together else posixpath.join(target, each)
        count = await bench.guest.upload(bench.supplies.shelf.names[each], into, uid=0, gid=0)
        bench.log.line(number, f"Artifact {each}: {count.bytes / 1024:.0f} KiB, into {into}", "node")
    bench.log.line(number, f"Total of {len(wanted)} artifact(s) downloaded", "node")
    return {"download-path": target}


def _there_are(names: Mapping[str, object]) -> str:
    return (
        f"There are {', '.join(names)}."
        if names
        else "This run has none yet: does the job need the one that uploads it?"
    )
