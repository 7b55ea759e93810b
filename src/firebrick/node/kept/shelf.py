"""Machines that are kept, below `kept/` of the home: a snapshot each, and the record that says what it is of.

    kept/<run>/<job>/<name>/record.json     what happened, and until when it is kept
    kept/<run>/<job>/<name>/snapshot/       the machine at that moment

`<name>` is the number of the step that failed, counted from 1; `before-<number>` for a checkpoint; `end` for a machine kept after its last step. An
entry appears whole or not at all. Those whose time is over go, and of the others those beyond the quota (see `firebrick.node.kept.quota`), whenever
one is added, a node is opened, or somebody asks. One lock of the shelf is held by who adds, removes or starts a machine from an entry: nothing is
taken away from under a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firebrick import tree
from firebrick.home import Home
from firebrick.lock import hold_lock
from firebrick.machine import Snapshot, SnapshotError, trust
from firebrick.machine.drafts import draft_name, retire, sweep_drafts
from firebrick.node.errors import NodeError
from firebrick.node.kept.quota import Quota, beyond
from firebrick.task import shielded
from firebrick.text import encodable

VERSION: Final = 1
_RECORD: Final = "record.json"
_SNAPSHOT: Final = "snapshot"
_MOST_RECORD: Final = 8 << 20
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Kind(StrEnum):
    """Why a machine is kept: its step failed; as a checkpoint before a step; after the last step."""

    FAILED = "failed"
    BEFORE = "before"
    END = "end"


class Ended(msgspec.Struct, frozen=True):
    """How a job ended that the kept one needed, as its expressions see it."""

    result: str
    outputs: Mapping[str, str] = {}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One record. `step` counts from 0, as in events, what actions do before the first step included; `index` is that of the step in the job. Text
    is masked: no secret is in a record, only the names of those the order had, in `secrets`; what the guest knows, values included, is in its
    memory and so in the snapshot. `argv` is empty where no command ran. `state` is the digest of what lies in the guest to go on from there (see
    `firebrick.node.kept.checkpoint`); `needs` is how the jobs before ended. `tenant` says whose it is: that of the run's
    repository. `title` is what people call the job, `caller / job` of a called workflow; `callers` is how the jobs before the calling ones ended, the
    outermost first."""

    version: int
    run: str
    tenant: str = ""
    workflow: str
    job: str
    title: str = ""
    kind: Kind
    step: int
    index: int
    name: str
    exit_code: int | None = None
    script: str = ""
    argv: tuple[str, ...] = ()
    directory: str = ""
    environment: Mapping[str, str] = {}
    secrets: tuple[str, ...] = ()
    needs: Mapping[str, Ended] = {}
    callers: tuple[Mapping[str, Ended], ...] = ()
    sha: str = ""
    image: str
    machine: str
    state: str
    at: float
    expires: float
    milliseconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    bytes: Annotated[int, msgspec.Meta(ge=0)] = 0

    def is_of(self, job: str) -> bool:
        """Whether this is the job's key or what people call it."""
        return self.job == job or (_title(self.title) == _title(job) != "")

    @property
    def is_checkpoint(self) -> bool:
        return self.kind is Kind.BEFORE

    @property
    def label(self) -> str:
        """The last part of its path, and what `--step` may say."""
        return {
            Kind.FAILED: f"{self.step + 1}",
            Kind.BEFORE: f"before-{self.step + 1}",
            Kind.END: "end",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and where it lies."""

    record: Kept
    path: Path

    @property
    def snapshot(self) -> Snapshot:
        """Raises SnapshotError where it is damaged."""
        return Snapshot.load(self.path / _SNAPSHOT)


class KeptShelf:
    """The kept machines of a home, shared by every process that uses it."""

    def __init__(self, home: Home, quota: Quota) -> None:
        self._root = home.kept
        self._cache = home.cache
        self._quota = quota

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """While this lasts no entry appears or goes."""
        async with hold_lock(self._root / ".lock"):
            yield

    @asynccontextmanager
    async def drafted(self, run: str, job: str) -> AsyncIterator[Path]:
        """A directory for an entry to be made in: what becomes of it is said with `put`. Gone at the end unless it was put."""
        folder = self._root / _plain(run) / _plain(job)
        draft = folder / draft_name("entry")
        async with self.locked():  # a sweep removes folders that are empty
            draft.mkdir(mode=0o700, parents=True)
        try:
            yield draft
        finally:
            await shielded(asyncio.to_thread(tree.remove, draft))

    async def put(self, draft: Path, record: Kept) -> Entry | None:
        """Make the draft, whose snapshot is there, the entry of `record`; one with the same name is replaced, and others go for it where the
        quota says so. None where it says that this one is too much. Raises OSError."""
        entry = Entry(record, draft.parent / record.label)
        async with self.locked():
            return entry if await asyncio.to_thread(self._put, draft, entry) else None

    def _put(self, draft: Path, entry: Entry) -> bool:
        left = [other for other in self.entries() if other.path != entry.path]
        gone = beyond([one.record for one in (*left, entry)], self._quota)
        if any(record is entry.record for record in gone):
            return False
        (draft / _RECORD).write_bytes(msgspec.json.encode(entry.record))
        _remove(entry.path)
        draft.rename(entry.path)
        with contextlib.suppress(SnapshotError):
            trust.trust(entry.snapshot, self._cache)  # it has another path now
        self._make_room(newest=entry.path)
        return True

    async def sweep(self) -> list[Kept]:
        """Remove what is over its time, what is beyond the quota, and what killed processes have left. Returns the records of entries."""
        if not self._root.is_dir():
            return []
        async with self.locked():
            return await asyncio.to_thread(self._make_room)

    async def remove(self, entries: Iterable[Entry]) -> None:
        async with self.locked():
            for entry in entries:
                await asyncio.to_thread(_remove, entry.path)
            await asyncio.to_thread(self._make_room)

    def entries(self) -> list[Entry]:
        """All that can be used, the oldest first."""
        now = time.time()
        return [entry for entry in self._all() if entry.record.expires > now]

    def run_named(self, name: str) -> str:
        """The run of this name, or whose name begins so; `last` is the last of which something is kept. Raises NodeError."""
        return _chosen_run(name, self.entries())

    def find(self, run: str, job: str | None = None, label: str | None = None, *, kind: Kind | None = None) -> Entry:
        """The entry meant by the name of a run, or its beginning, or `last`; of several, what failed counts, then what is
        of the end, and then what is oldest. Raises NodeError where there is none, or jobs to choose from."""
        entries = [entry for entry in self.entries() if kind is None or entry.record.kind is kind]
        what, ask = _CHECKPOINT if kind is Kind.BEFORE else _MACHINE
        run = _chosen_run(run, entries, what, ask)
        found = [entry for entry in entries if entry.record.run == run and (job is None or entry.record.is_of(job))]
        if label is not None:
            found = [entry for entry in found if entry.record.label == label]
        if not found:
            of = "".join([f" of job {job}" if job else "", _place(label) if label else ""])
            raise NodeError(
                f"no {what}{of} of run {run} is kept", hint=f"`firebrick kept ls` lists those that are. {ask}"
            )
        for best in (Kind.FAILED, Kind.END):
            found = [entry for entry in found if entry.record.kind is best] or found
        jobs = sorted({entry.record.job for entry in found})
        if len(jobs) > 1:
            raise NodeError(
                f"{what}s of several jobs of run {run} are kept: {', '.join(jobs)}", hint="Name one behind the run."
            )
        return found[0]

    def _all(self) -> Iterator[Entry]:
        found = (_read(file.parent) for file in self._root.glob(f"*/*/*/{_RECORD}"))
        yield from sorted((entry for entry in found if entry is not None), key=lambda entry: entry.record.at)

    def _make_room(self, newest: Path | None = None) -> list[Kept]:
        """With the lock held. Returns the records of what goes; `newest` has its place."""
        now, entries = time.time(), list(self._all())
        over = [entry for entry in entries if entry.record.expires <= now and entry.path != newest]
        gone = [entry.record for entry in over]
        gone += beyond([entry.record for entry in entries if entry not in over], self._quota)
        for entry in entries:
            if any(entry.record is record for record in gone):
                _remove(entry.path)
        self._forget_leftovers()
        return gone

    def _forget_leftovers(self) -> None:
        """Drafts of the dead, entries that cannot be read, folders in which nothing is."""
        for folder in self._root.glob("*/*"):
            sweep_drafts(folder)
            for path in folder.glob("[!.]*"):
                if _read(path) is None:
                    _remove(path)
            with contextlib.suppress(OSError):
                folder.rmdir()
        for folder in self._root.glob("[!.]*"):
            with contextlib.suppress(OSError):
                folder.rmdir()
        sweep_drafts(self._root)


def _read(path: Path) -> Entry | None:
    """None for what is no entry, or one of another version."""
    try:
        with (path / _RECORD).open("rb") as file:
            record = msgspec.json.decode(file.read(_MOST_RECORD), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return Entry(record, path) if record.version == VERSION else None


def _remove(path: Path) -> None:
    if path.exists():
        retire(path)


def _title(text: str) -> str:
    """However the `/` between a caller and its job is set off."""
    return "/".join(part.strip() for part in text.split("/"))


def _plain(name: str) -> str:
    if not _PLAIN.fullmatch(name):
        raise NodeError(f"cannot keep a machine of {encodable(name)!r}: that is no name for a directory")
    return name


def _place(label: str) -> str:
    """Of a label, in words."""
    before = label.removeprefix("before-")
    return f" before step {before}" if before != label else f" at step {label}"


# What entries are called, and how one comes to have them.
_MACHINE: Final = ("machine", "They are kept for a while when a step fails: see `--keep` of run.")
_CHECKPOINT: Final = (
    "checkpoint",
    '`firebrick run --checkpoint step`, or `checkpoint = "step"` in [node] of config.toml, takes one before each step.',
)


def _chosen_run(name: str, entries: list[Entry], what: str = _MACHINE[0], ask: str = _MACHINE[1]) -> str:
    runs = list(dict.fromkeys(entry.record.run for entry in entries))
    if name == "last" and runs:
        return runs[-1]
    if name in runs:
        return name
    matching = [run for run in runs if run.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise NodeError(f"several runs begin with {name!r}: {', '.join(matching)}", hint="Give more of the name.")
    hint = f"`firebrick kept ls` lists those that are. {ask}" if runs else ask
    of = "any run" if name == "last" else f"a run {name!r}"
    raise NodeError(f"no {what} of {of} is kept", hint=hint)
