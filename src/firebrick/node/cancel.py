"""How a run learns that it shall end: a request first, an order later."""

from __future__ import annotations

import asyncio

from firebrick.node.event import CancelCause


class Cancellation:
    """`request` asks the work to end and starts the time that what still has to run is given; when that is over, `expired` is set.

    One for each job; `cause` is None until it was requested, and then never changes. `began` is when the cancelling began that it is a part of,
    by the clock of the loop; `message` the sentence that says why, empty until then."""

    def __init__(self, patience: float) -> None:
        self.requested = asyncio.Event()
        self.expired = asyncio.Event()
        self.cause: CancelCause | None = None
        self.began = 0.0
        self.message = ""
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self.stopped = False
        self._whole: Cancellation | None = None
        self._parts: dict[Cancellation, None] = {}

    def part(self) -> Cancellation:
        """Of something within the work, that may be ended alone, and is when the whole is. To be closed."""
        part = Cancellation(self._patience)
        part._whole = self
        self._parts[part] = None
        part.follow(self)
        return part

    def stop(self) -> None:
        """Ask a part to end, and nothing but that: `stopped` says so then."""
        if self.cause is None:
            self.stopped = True
            self.request(CancelCause.USER)

    def request(self, cause: CancelCause, began: float | None = None, *, message: str = "") -> None:
        """Idempotent: the first cause counts. `began` is now, or earlier for what was not under way then; `message` says more than the cause does."""
        if self.cause is None:
            self.cause = cause
            self.message = message or cause_message(cause)
            self.began = asyncio.get_running_loop().time() if began is None else began
            self.requested.set()
            self._timer = asyncio.get_running_loop().call_later(self._patience, self.expired.set)
            for part in self._parts:
                part.follow(self)

    @property
    def next_end(self) -> asyncio.Event:
        """What ends a step that begins now: the request, or, where that was made already (the step has `always()`), the end of patience."""
        return self.expired if self.requested.is_set() else self.requested

    def close(self) -> None:
        if self._whole is not None:
            del self._whole._parts[self]  # noqa: SLF001 - another of its kind
            self._whole = None
        if self._timer is not None:
            self._timer.cancel()

    def follow(self, other: Cancellation) -> None:
        """Ask for the end the other one was asked for, if it was: as early, and for the same reason."""
        if other.cause is not None:
            self.request(other.cause, other.began, message=other.message)


def cause_message(cause: CancelCause) -> str:
    """What is said where nothing more is known than the cause."""
    match cause:
        case CancelCause.TIMEOUT:
            return "The time for it is over."
        case CancelCause.MATRIX:
            return "Cancelled, because another job of the matrix failed."
        case CancelCause.CONCURRENCY:
            return "Cancelled, because another run or job took its place in the concurrency group."
        case CancelCause.SHUTDOWN:
            return "Cancelled, because the node ends."
        case CancelCause.USER:
            return "Cancelled."


def job_limit(job_id: str, limit_s: float) -> str:
    """Why a job is out of time that may take `limit_s` by itself."""
    return (
        f"The job was not done within its `timeout-minutes: {limit_s / 60:g}`. "
        f"Give the job '{job_id}' more of them, or its steps less to do."
    )


def run_limit(limit_s: float) -> str:
    """Why a run is out of time, and with it all its jobs."""
    return (
        f"The run was not done within its limit of {limit_s / 60:g} {'minute' if limit_s == 60 else 'minutes'}. "
        "`firebrick run --timeout MINUTES`, or `timeout_s` of a build, gives it more."
    )
