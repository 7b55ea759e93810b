"""The actions the node does itself: `actions/checkout` and `actions/upload-artifact`. No code of an action runs.

Names of inputs are in lower case. Each raises StepError, SourceError, AgentError, TreeError.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from firebrick.node.action.use import NativeRun
from firebrick.node.errors import StepError
from firebrick.node.glob import Found, Search, find_files, parse_searches
from firebrick.workflow.command import Message

if TYPE_CHECKING:
    from firebrick.node.bench import Bench

Outputs = dict[str, str]

_TRUE: Final = ("true", "yes", "1")


async def _checkout(bench: Bench, number: int, inputs: Mapping[str, str]) -> Outputs:
    """The order's source into the workspace: the files as they are on the host, and a `.git` without anything of the host in it."""
    source = bench.order.source
    _check_same_source(bench, inputs)
    target = _inside(bench.paths.workspace, inputs.get("path") or ".")
    tree = await bench.source.tree()
    only = [PurePath(os.fsdecode(path)) for path in tree.paths]
    count = await bench.guest.upload(tree.root, target, only=only, uid=0, gid=0)
    bench.log.line(number, f"{len(tree.paths)} files, {count.bytes / 1024:.0f} KiB, in {target}", "node")
    with TemporaryDirectory(prefix="git-", dir=bench.source.scratch) as scratch:
        repository = Path(scratch) / "repository"
        if await bench.source.history(repository, depth=_depth(inputs)):
            await bench.guest.upload(repository / ".git", f"{target}/.git", uid=0, gid=0)
            bench.log.line(number, f"HEAD is {source.sha or 'the last commit'} ({source.ref or 'no ref'})", "node")
        else:
            bench.log.line(number, "The source has no commit: there is no .git in the workspace.", "node")
    return {"ref": source.ref, "commit": source.sha}


def _check_same_source(bench: Bench, inputs: Mapping[str, str]) -> None:
    source = bench.order.source
    repository, ref = inputs.get("repository", ""), inputs.get("ref", "")
    if repository and repository.lower() != source.repository.lower():
        raise StepError(f"cannot check out {repository!r}: only the run's own repository is supported yet")
    names = {source.ref, source.ref.removeprefix("refs/heads/").removeprefix("refs/tags/"), source.sha}
    if ref and ref not in names:
        raise StepError(
            f"cannot check out {ref!r}: only the run's own commit is supported yet", hint="Leave `ref` out."
        )
    for unsupported in ("submodules", "lfs", "sparse-checkout"):
        if inputs.get(unsupported, "").lower() not in ("", "false"):
            raise StepError(f"cannot check out with `{unsupported}`: it is not supported yet", hint="Leave it out.")


def _depth(inputs: Mapping[str, str]) -> int:
    text = inputs.get("fetch-depth", "").strip() or "1"
    if not text.isdecimal() or len(text) > 9:
        raise StepError(f"`fetch-depth` is {text!r}", hint="It is a number of commits, 0 for all of them.")
    return int(text)


def _inside(workspace: str, path: str) -> str:
    target = posixpath.normpath(posixpath.join(workspace, path))
    if target != workspace and not target.startswith(f"{workspace}/"):
        raise StepError(f"cannot check out into {path!r}: it is not below the workspace")
    return target


async def _upload_artifact(bench: Bench, number: int, inputs: Mapping[str, str]) -> Outputs:
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
    size = await bench.shelf.store(
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


NATIVE: Final[Mapping[str, NativeRun]] = {
    "actions/checkout": _checkout,
    "actions/upload-artifact": _upload_artifact,
}
