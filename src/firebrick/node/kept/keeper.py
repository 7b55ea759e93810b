"""When the machine of a job is kept: at a step that failed, as a checkpoint before one, after the last.

A workflow asks for checkpoints with a variable, which means nothing elsewhere: `FIREBRICK_CHECKPOINT: true` in the `env` of the workflow or the
job is before every step, in that of a step before this one; `false` in a step's is not before it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from firebrick.guest.errors import ChannelError, GuestError
from firebrick.machine import MachineError, MachineGoneError
from firebrick.node.action.use import Entry
from firebrick.node.errors import NodeError, told
from firebrick.node.event import MachineKept
from firebrick.node.guest import Keep as KeepMachine
from firebrick.node.kept import checkpoint, shelf
from firebrick.node.kept.shelf import Ended, Kept, Kind
from firebrick.node.scope import tenant_of
from firebrick.node.settings import Keep, NodeSettings
from firebrick.node.step.bench import Bench
from firebrick.workflow.syntax import Step

VARIABLE: Final = "FIREBRICK_CHECKPOINT"
_MOST_SCRIPT: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class _Moment:
    """See `Kept`."""

    kind: Kind
    number: int
    name: str
    index: int
    exit_code: int | None = None


@dataclass(kw_only=True)
class Keeper:
    """That of one job. `keep` is None where its machine cannot be saved; `begun_at` is the step the job begins with where that is a checkpoint
    already, `anything` whether a machine was kept. `title`, `needs` and `callers` are those of the records. Nothing that goes wrong here touches
    the job: the log says it."""

    settings: NodeSettings
    keep: KeepMachine | None
    machine: str
    title: str = ""
    needs: Mapping[str, Ended] = field(default_factory=dict)
    callers: tuple[Mapping[str, Ended], ...] = ()
    begun_at: int | None = None
    anything: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def before(self, bench: Bench, number: int, entry: Entry, name: str) -> None:
        """A step is about to run, as number `number` of all that run in the job, from 0."""
        if number == self.begun_at or not self._wants_checkpoint(bench, number, entry.step):
            return
        if bench.background is not None and bench.background.pending(besides=number):
            bench.log.node("No checkpoint before this step: there are steps in the background to wait for.", number)
        else:
            await self._take(bench, _Moment(Kind.BEFORE, number, name, bench.entries.index(entry)))

    async def failed(self, bench: Bench, number: int, entry: Entry, name: str, exit_code: int | None) -> None:
        """A step has failed, and the job with it."""
        if self.settings.keep is not Keep.NEVER:
            moment = _Moment(Kind.FAILED, number, name, bench.entries.index(entry), exit_code)
            await self._take(bench, moment)

    async def ended(self, bench: Bench, number: int) -> None:
        """The last step, with this number, is over."""
        if self.settings.keep is Keep.ALWAYS and not self.anything:
            await self._take(bench, _Moment(Kind.END, number, "the end of the job", len(bench.entries)))

    def _wants_checkpoint(self, bench: Bench, number: int, step: Step) -> bool:
        match self.settings.checkpoint:
            case "none":
                return False
            case "step":
                return True
            case "asked":
                own = step.env.entries.get(VARIABLE)
                return (own.raw if own is not None else bench.env.get(VARIABLE, "")).lower() == "true"
            case before:
                return before == f"before:{number + 1}"

    async def _take(self, bench: Bench, moment: _Moment) -> None:
        if self.keep is None:
            return
        try:
            entry = await self._save(self.keep, bench, moment)
        except (ChannelError, MachineGoneError):
            raise
        except (NodeError, GuestError, MachineError, OSError) as error:
            bench.log.node(f"The machine could not be kept: {told(error)}", moment.number)
            return
        if entry is None:
            bench.log.node(
                f"The machine is not kept: with what others keep it would be more than the {self.settings.keep_mib} MiB of `keep_mib`, or "
                f"the {self.settings.keep_count} machines of `keep_count`. `firebrick kept ls` lists them.",
                moment.number,
            )
            return
        self._report(bench, entry.record)

    async def _save(self, keep: KeepMachine, bench: Bench, moment: _Moment) -> shelf.Entry | None:
        """The state is in the guest while the snapshot is made, and no longer."""
        async with self._turn:  # several steps may fail at once
            try:
                state = await checkpoint.leave(bench)
                return await keep(self._record(bench, moment, state))
            finally:
                await checkpoint.clear(bench.guest)

    def _record(self, bench: Bench, moment: _Moment, state: str) -> Kept:
        mask, command, now = bench.log.mask, bench.variables.command, time.time()
        return Kept(
            version=shelf.VERSION,
            run=bench.order.id,
            tenant=mask(tenant_of(bench.order)),
            workflow=mask(bench.order.workflow.name),
            job=bench.log.job,
            title=mask(self.title),
            kind=moment.kind,
            step=moment.number,
            index=moment.index,
            name=mask(moment.name),
            exit_code=moment.exit_code,
            script=mask(command.text)[:_MOST_SCRIPT] if command is not None else "",
            argv=tuple(mask(word) for word in command.argv) if command is not None else (),
            directory=mask(command.directory if command is not None else bench.paths.workspace),
            environment={mask(n): mask(v) for n, v in command.env.items()} if command is not None else {},
            secrets=tuple(sorted(bench.order.secrets)),
            needs=self.needs,
            callers=self.callers,
            sha=bench.order.source.sha,
            image="",
            machine=self.machine,
            state=state,
            at=now,
            expires=now + self.settings.keep_minutes * 60,
        )

    def _report(self, bench: Bench, record: Kept) -> None:
        self.anything = True
        cost = f"{record.milliseconds:.0f} ms, {record.bytes / (1 << 20):.0f} MiB"
        until = f"until {time.strftime('%H:%M', time.localtime(record.expires))}"
        if record.kind is Kind.BEFORE:
            again = f"firebrick rerun {record.run} {record.job} --from-step {record.step + 1}"
            bench.log.node(f"Checkpoint before this step ({cost}), {until}: {again}", record.step)
        else:
            bench.log.node(
                f"The machine is kept {until} ({cost}): firebrick debug {record.run} {record.job}", record.step
            )
        bench.log.emit(
            MachineKept(
                at=time.time(),
                job=record.job,
                step=record.step,
                kind=record.kind.value,
                label=record.label,
                milliseconds=record.milliseconds,
                bytes=record.bytes,
                expires=record.expires,
            )
        )
