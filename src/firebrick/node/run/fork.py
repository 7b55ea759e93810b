"""Set up once, fork many: the common part of a matrix (see `firebrick.workflow.fork`) is run by the first of its jobs that gets a machine; the
others go on from a snapshot of that, as if they had run it themselves, log included.

If the first is lost before it gets there, the next one takes its place. If its machine cannot be saved, every job runs the common part itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from firebrick.guest.errors import ChannelError, GuestError
from firebrick.machine import MachineError, MachineGoneError
from firebrick.node.errors import NodeError, told
from firebrick.node.event import Annotation, Event, LogLine, StepFinished, StepStarted
from firebrick.node.guest import Lender, Loan
from firebrick.node.journal import Journal
from firebrick.node.kept import checkpoint
from firebrick.node.kept.resume import Resume
from firebrick.node.log import Emit, JobLog
from firebrick.node.step.bench import Bench
from firebrick.workflow.fork import fork_point
from firebrick.workflow.plan import PlannedJob

_OF_STEPS: Final = (StepStarted, LogLine, Annotation, StepFinished)


class Trunk:
    """The common part of one matrix. Made by `open_trunk`. `step` is the first that is each job's own, `first` the number it has among
    all that run: actions may have something to do before the job's first step."""

    def __init__(self, step: int, directory: Path, journals: ExitStack) -> None:
        self.step = step
        self.first = step
        self._directory = directory
        self._journals = journals
        self._resume: Resume | None = None
        self._said: Journal | None = None
        self._events = self._spent = self._tries = 0
        self._runs = asyncio.Lock()
        self._hopeless = False

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[Branch]:
        """For a job of the matrix, from before it has a machine: waits for whoever runs the common part, and runs it where nobody does."""
        async with AsyncExitStack() as turn:
            if self._resume is None:
                await turn.enter_async_context(self._runs)
            if self._resume is not None or self._hopeless:
                await turn.aclose()
                yield Branch(self, resume=self._resume)
                return
            self._said, self._events = self._journals.enter_context(Journal.create(self._directory)), 0
            yield Branch(self, turn=turn)

    async def keep(self, bench: Bench, loan: Loan) -> None:
        """The common part is over. Raises what loses the job; anything else only means that the others do it themselves."""
        self._tries += 1
        try:
            self._resume = await self._save(bench, loan, self._directory / f"trunk-{self._tries}")
            self._spent = bench.log.spent
        except (ChannelError, MachineGoneError):
            raise
        except (NodeError, GuestError, MachineError, OSError) as error:
            self._hopeless = True
            bench.log.node(f"The other jobs of the matrix cannot go on from here: {told(error)}")

    async def _save(self, bench: Bench, loan: Loan, target: Path) -> Resume:
        if loan.save is None:
            raise NodeError("this machine cannot be saved")
        began = time.perf_counter()
        try:
            state = await checkpoint.leave(bench)
            taken = await loan.save(target)
        finally:
            await checkpoint.clear(bench.guest)
        cost = f"{(time.perf_counter() - began) * 1000:.0f} ms, {taken.size / (1 << 20):.0f} MiB"
        bench.log.node(f"The other jobs of the matrix go on from here ({cost}).")
        return Resume(snapshot=taken, image=loan.image, step=self.first, state=state)

    def note(self, event: Event) -> None:
        """Something the job that runs the common part has said."""
        if self._said is not None and isinstance(event, _OF_STEPS) and self._is_common(event):
            self._said.append(event)
            self._events += 1

    def _is_common(self, event: StepStarted | LogLine | Annotation | StepFinished) -> bool:
        """What belongs to no step was said by the hook before the first one, or by the node of this one machine."""
        if event.step < 0:
            return not isinstance(event, LogLine) or event.stream != "node"
        return event.step < self.first

    async def replay(self, log: JobLog) -> None:
        """Say what was said of the common part, as the job of this log. It is masked already."""
        left = self._events
        if self._said is not None and left:
            async with aclosing(self._said.read()) as events:
                async for event in events:
                    assert isinstance(event, _OF_STEPS)
                    log.emit(msgspec.structs.replace(event, job=log.job, at=time.time()))
                    if isinstance(event, Annotation):
                        log.skip_annotation(event.step, event.level)
                    left -= 1
                    if not left:
                        break
        log.skip(self._spent)


class Branch:
    """How one job begins: at its first step, or where `resume` says; as the one that runs the common part of its matrix, or after it."""

    def __init__(
        self, trunk: Trunk | None = None, *, resume: Resume | None = None, turn: AsyncExitStack | None = None
    ) -> None:
        self.resume = resume
        self._trunk = trunk
        self._turn = turn
        self._emit: Emit | None = None

    def listen(self, log: JobLog, before: int) -> None:
        """Where this job runs the common part: note what it says, for the others. So many actions have something to do before its first step."""
        trunk, emit = self._trunk, log.emit
        if trunk is None or self._turn is None:
            return
        trunk.first = before + trunk.step

        def both(event: Event) -> None:
            emit(event)
            trunk.note(event)

        self._emit, log.emit = emit, both

    async def begin(self, bench: Bench) -> int:
        """The number of the step the job begins with; where it goes on from a snapshot, the bench is what it was. Raises NodeError, AgentError."""
        if self.resume is None:
            return 0
        await self.resume.go_on(bench)
        if self._trunk is not None:
            await self._trunk.replay(bench.log)
        return self.resume.step

    async def arrive(self, bench: Bench, loan: Loan, number: int) -> None:
        """Step `number` is next. Where that is the first that is not common, the others may begin."""
        trunk, turn = self._trunk, self._turn
        if trunk is None or turn is None or number != trunk.first:
            return
        assert self._emit is not None
        bench.log.emit = self._emit
        if bench.cancellation.cause is None:  # else the next one does it, where there is to be one
            await trunk.keep(bench, loan)
        self._turn = None
        await turn.aclose()


@asynccontextmanager
async def open_trunk(
    copies: tuple[PlannedJob, ...], lender: Lender, *, may_fork: bool = True
) -> AsyncIterator[Trunk | None]:
    """The common part of these jobs, as long as they run; None where they have none, nobody to share it with, or may not."""
    step = fork_point(copies[0].job) if may_fork and len(copies) > 1 else None
    if not step:
        yield None
        return
    with lender.shelter() as directory, ExitStack() as journals:
        yield Trunk(step, directory, journals)
