"""What it takes to go on from a snapshot of a job's machine, besides the machine: left in the guest, and found there again.

Environment, outputs and masked values came from the guest or were given to it, and may be secret: so they lie where they were before, in the
guest's memory, in a file that is there while the snapshot is made. The node's record has only its digest, so whoever changed the file inside
cannot pass another state off as this one. Secrets of the order are not in it: who goes on from here gives them again.
"""

from __future__ import annotations

import hashlib
import secrets
import shlex
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from firebrick.guest.errors import AgentError, OutputTooLargeError
from firebrick.node.context import HOME, PATH, TEMP
from firebrick.node.errors import NodeError
from firebrick.node.guest import Guest
from firebrick.node.kept.carried import (
    Outcome,
    Used,
    add_again,
    matchers_of,
    outcomes_from,
    outcomes_of,
    take_up,
    texts,
    uses_of,
)
from firebrick.node.step.bench import Bench
from firebrick.text import encodable
from firebrick.workflow.command.masker import MAX_ADDED
from firebrick.workflow.command.matcher import MAX_MATCHERS

VERSION: Final = 1
DIRECTORY: Final = f"{TEMP}/_firebrick"
STEP: Final = f"{DIRECTORY}/step"
"""A script of the guest that runs the last command of the step again."""
STATE: Final = f"{DIRECTORY}/state"
_MOST: Final = 32 << 20

Texts = Mapping[str, str]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`added` is what `GITHUB_ENV` changed, `posts` the actions that have something to do after the last step, `matchers` the files of problem
    matchers, `masks` what the job masked; `directory` and `environment` are those of the last command, or what a next one has at least. `nonce`
    makes the digest say nothing of the contents."""

    version: int
    nonce: bytes
    added: Texts
    path: tuple[str, ...]
    outcomes: Mapping[str, Outcome]
    posts: tuple[Used, ...]
    matchers: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_MATCHERS)]
    failed: bool
    masks: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_ADDED)]
    directory: str
    environment: Texts


def state_of(bench: Bench) -> State:
    """The state of a job between two steps, or after the one that has just ended."""
    given = bench.variables.given
    added = {name: value for name, value in bench.env.items() if given.get(name) != value}
    command = bench.variables.command
    environment = {"HOME": HOME, "PATH": PATH, **bench.env} if command is None else command.env
    return State(
        version=VERSION,
        nonce=secrets.token_bytes(32),
        added=texts(added),
        path=tuple(encodable(entry) for entry in bench.path),
        outcomes=outcomes_of(bench),
        posts=uses_of(bench, bench.entries),
        matchers=matchers_of(bench),
        failed=bench.failed,
        masks=tuple(encodable(mask) for mask in bench.log.masks),
        directory=bench.paths.workspace if command is None else command.directory,
        environment=texts(environment),
    )


async def leave(bench: Bench) -> str:
    """Put the state into the guest, and beside it the script `STEP` where a command was run; the digest is what `collect` asks for.

    Raises AgentError, NodeError for a state too large to be kept, and for one that would not mask what this job masks."""
    if bench.log.closed:
        raise NodeError("the job has more masked than can be")
    data = msgspec.msgpack.encode(state_of(bench))
    if len(data) > _MOST:
        raise NodeError(f"the outputs and variables of the job are more than {_MOST >> 20} MiB")
    files = bench.guest.files
    await files.write(STATE, data, mode=0o600, parents=True)
    command = bench.variables.command
    if command is not None:
        again = f"cd {shlex.quote(command.directory)} || exit\nexec {shlex.join(command.argv)}\n"
        await files.write(STEP, f"#!/bin/sh\n{again}".encode(), mode=0o755)
    return hashlib.sha256(data).hexdigest()


async def clear(guest: Guest) -> None:
    """Take away what `leave` has put there. Raises AgentError."""
    await guest.files.remove(DIRECTORY, recursive=True, missing_ok=True)


async def collect(guest: Guest, digest: str) -> State:
    """The state found in a machine that was restored. Raises NodeError where it is not what was left there."""
    try:
        data = await guest.files.read(STATE, limit=_MOST + 1)
    except (AgentError, OutputTooLargeError) as error:
        raise NodeError(f"cannot find the state of the job in its machine: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise NodeError("cannot go on from the machine: the state of the job in it was changed from inside")
    try:
        state = msgspec.msgpack.decode(data, type=State)
    except msgspec.MsgspecError as error:
        raise NodeError(f"cannot go on from the machine: the state of its job cannot be read: {error}") from error
    if state.version != VERSION:
        raise NodeError(
            f"cannot go on from the machine: it was kept by another release (state {state.version}, this one has {VERSION})"
        )
    return state


async def apply(state: State, bench: Bench) -> None:
    """Make the bench what it was; what workflow and job give to the environment is there already. Raises NodeError, AgentError."""
    for mask in state.masks:
        bench.log.add_mask(-1, mask)
    bench.env.update(state.added)
    bench.path = state.path
    bench.outcomes.update(outcomes_from(state.outcomes))
    bench.failed = state.failed
    add_again(bench, state.matchers)
    await take_up(bench, bench.entries, state.posts)
