"""`actions/checkout`: the source of the run, put into the workspace. The machine needs no network, and gets no credential."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from firebrick.node.action.inside import inside
from firebrick.node.errors import StepError

if TYPE_CHECKING:
    from firebrick.node.step.bench import Bench


async def checkout(bench: Bench, number: int, inputs: Mapping[str, str]) -> dict[str, str]:
    """The order's source into the workspace: the files as they are on the host, and a `.git` without anything of the host in it."""
    source = bench.order.source
    _check_same_source(bench, inputs)
    target = inside(bench.paths.workspace, inputs.get("path") or ".")
    tree = await bench.supplies.source.tree()
    only = [PurePath(os.fsdecode(path)) for path in tree.paths]
    count = await bench.guest.upload(tree.root, target, only=only, uid=0, gid=0)
    bench.log.line(number, f"{len(tree.paths)} files, {count.bytes / 1024:.0f} KiB, in {target}", "node")
    with TemporaryDirectory(prefix="git-", dir=bench.supplies.source.scratch) as scratch:
        repository = Path(scratch) / "repository"
        if await bench.supplies.source.history(repository, depth=_depth(inputs)):
            await bench.guest.upload(repository / ".git", f"{target}/.git", uid=0, gid=0)
            bench.log.line(number, f"HEAD is {source.sha or 'the last commit'} ({source.ref or 'no ref'})", "node")
        else:
            bench.log.line(number, "The source has no commit: there is no .git in the workspace.", "node")
    return {"ref": source.ref, "commit": source.sha}


def _check_same_source(bench: Bench, inputs: Mapping[str, str]) -> None:
    source = bench.order.source
    repository, ref = inputs.get("repository", ""), inputs.get("ref", "")
    if repository and repository.lower() != source.repository.lower():
        raise StepError(
            f"cannot check out {repository!r}: only the run's own repository is supported yet",
            hint="Leave `repository` out, or fetch it in a step of a run that has a network.",
        )
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
