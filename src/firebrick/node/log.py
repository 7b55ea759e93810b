"""The one way from a job to the journal: masked, numbered, bounded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from firebrick.node.errors import StepError
from firebrick.node.event import Annotation, Event, JobStarted, LogLine
from firebrick.workflow.command.command import Message
from firebrick.workflow.command.masker import Masker, MaskLimitError

Emit = Callable[[Event], None]
NODE_STEP = -1
ANNOTATIONS_PER_LEVEL: Final = 10
"""Of a step. What comes after them stands in the log alone."""
ANNOTATIONS_PER_JOB: Final = 50
_MAX_MESSAGE: Final = 4096
"""Characters of an annotation's message."""


class JobLog:
    """The log of one job. Everything said here is masked with the secrets of the order and what the job asked to mask.

    `limit` is in bytes; what comes after it is dropped, and one line says so. `started`: the job has its machine. `debugging`: debug
    messages are shown. A job that wants more masked than can be has no log from there on."""

    def __init__(
        self, job: str, emit: Emit, *, secrets: Iterable[str] = (), limit: int, debugging: bool = False
    ) -> None:
        self.job = job
        self.emit = emit
        self.masker = Masker(secrets)
        # What the job itself asked for: whoever goes on from a snapshot of it asks for the same.
        self.masks: list[str] = []
        self.started = False
        self.debugging = debugging
        self._left = limit
        self._limit = limit
        self._closed = False
        self._annotations: Counter[tuple[int, str]] = Counter()

    @property
    def closed(self) -> bool:
        """Whether more was to be masked than can be: nothing more is shown, and nobody can go on with this log's masks."""
        return self._closed

    @property
    def spent(self) -> int:
        """Bytes of the limit that were used."""
        return self._limit - self._left

    @property
    def has_room(self) -> bool:
        """Whether its limit is not reached."""
        return self._left > 0

    def skip(self, count: int) -> None:
        """Count what another log has said in place of this one."""
        self._left -= count

    def skip_annotation(self, step: int, level: str) -> None:
        """Count an annotation another log has made in place of this one."""
        self._annotations[step, level] += 1

    def start(self, event: JobStarted) -> None:
        self.started = True
        self.emit(event)

    def add_mask(self, step: int, value: str) -> None:
        """Raises StepError where that is too much; the log has said so, and says nothing more."""
        try:
            self.masker.add(value)
        except MaskLimitError as error:
            message = f"Cannot mask the value: {error}. Nothing more of this job is shown."
            # Past the masker, which masks everything now; there is nothing of the guest in it.
            self._emit_line(step, "node", f"##[error]{message}")
            if not self._closed:
                self.emit(Annotation(at=time.time(), job=self.job, step=step, level="error", message=message))
            self._closed = True
            raise StepError(message) from error
        self.masks.append(value)

    def mask(self, text: str) -> str:
        return self.masker.mask(text)

    def line(self, step: int, text: str, stream: str = "stdout") -> None:
        if self._left <= 0:
            return  # before the work of masking
        for each in self.mask(text).split("\n"):  # what a command says may hold newlines: %0A
            if self._left <= 0:
                return
            self._emit_line(step, stream, each)
            self.spend(step, len(each) + 1)

    def lines(self, step: int, texts: Sequence[str]) -> None:
        """Lines of a step that hold no newlines: as if each were given to `line`, and faster."""
        if not texts or self._left <= 0:
            return
        masked = self.masker.mask_lines(texts)
        size = sum(map(len, masked)) + len(masked)
        if size >= self._left or self._closed:
            for text in texts:
                self.line(step, text)
            return
        self._left -= size
        now, emit, job = time.time(), self.emit, self.job
        for text in masked:
            emit(LogLine(at=now, job=job, step=step, stream="stdout", text=text))

    def debug(self, step: int, text: str) -> None:
        if self.debugging:
            self.line(step, f"##[debug]{text}")

    def spend(self, step: int, count: int) -> None:
        """Take `count` bytes of the limit; the line that says so comes when it is reached."""
        if self._left <= 0:
            return
        self._left -= count
        if self._left <= 0:
            self._emit_line(
                step,
                "node",
                f"The log of this job has reached its limit of {self._limit >> 20} MiB: no more of it is kept, the job goes on.",
            )

    def node(self, text: str, step: int = NODE_STEP) -> None:
        """A word of the node itself."""
        for line in text.splitlines():
            self._emit_line(step, "node", self.mask(line))

    def annotates(self, step: int, level: str) -> bool:
        """Whether another message of this level would be an annotation: ten of a level in a step are, and fifty in a job."""
        few = self._annotations[step, level] < ANNOTATIONS_PER_LEVEL
        return few and self._annotations.total() < ANNOTATIONS_PER_JOB and not self._closed

    def annotate(self, step: int, message: Message) -> None:
        """The message stands in the log, and, unless there were too many, as an annotation."""
        self.line(step, f"##[{message.level}]{message.shown or message.message}")
        if not self.annotates(step, message.level):
            return
        self._annotations[step, message.level] += 1
        self.emit(
            Annotation(
                at=time.time(),
                job=self.job,
                step=step,
                level=message.level,
                message=self.mask(message.message)[:_MAX_MESSAGE],
                title=self.mask(message.title)[:_MAX_MESSAGE],
                file=self.mask(message.file)[:_MAX_MESSAGE],
                line=message.line,
                end_line=message.end_line,
                column=message.column,
                end_column=message.end_column,
            )
        )

    def fault(self, step: int, text: str) -> None:
        self.annotate(step, Message(level="error", message=text))

    def _emit_line(self, step: int, stream: str, text: str) -> None:
        if self._closed:
            return
        self.emit(LogLine(at=time.time(), job=self.job, step=step, stream=stream, text=text))
