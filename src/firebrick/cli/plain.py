"""A run as plain lines, for pipes and logs, and as one JSON object per event."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import IO, Final, Protocol, Self

import msgspec

from firebrick.cli.terminal import duration, size, tame, tame_block, tame_json
from firebrick.node.event import (
    Annotation,
    ArtifactStored,
    Conclusion,
    Event,
    JobFinished,
    JobsPlanned,
    JobStarted,
    LogLine,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)

MARKS = {
    Conclusion.SUCCESS: "ok",
    Conclusion.FAILURE: "FAILED",
    Conclusion.CANCELLED: "cancelled",
    Conclusion.SKIPPED: "skipped",
    Conclusion.WAITING: "waiting",
}
FORGIVEN: Final = "FAILED (continue-on-error)"

_GOES_ON: Final = "   "
_REMEMBERED: Final = 100
"""Lines of the node itself: what it says at the end of a job, with the console of a machine behind it."""


class View(Protocol):
    """Something that shows a run while it happens: entered before the first event, left after the last."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def show(self, event: Event) -> None: ...

    def tick(self) -> None:
        """Called some times a second: what shows the time may draw itself anew."""

    def notice(self, text: str) -> None:
        """A word from the command line itself, beside the events."""


class JsonView:
    """`{"event": "log_line", ...}`, one a line, flushed."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._encoder = msgspec.json.Encoder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._out.flush()

    def show(self, event: Event) -> None:
        self._out.write(tame_json(self._encoder.encode(event).decode()) + "\n")
        self._out.flush()

    def tick(self) -> None:
        pass

    def notice(self, text: str) -> None:
        """JSON readers get events only."""


class PlainView:
    """Every line of the run. With several jobs each line begins with its job, because they run side by side; so do steps, and while several do, a
    line of one begins with its number."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._several = False
        self._names: dict[str, str] = {}
        self._running: dict[str, set[int]] = {}
        self._said: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._out.flush()

    def show(self, event: Event) -> None:
        if isinstance(event, LogLine):
            if event.stream == "node":
                self._said[event.job].append(event.text)
            several = event.step >= 0 and len(self._running.get(event.job, ())) > 1
            self._write(event.job, event.text, mark=f"{event.step + 1}| " if several else "| ")
        else:
            self._show_rare(event)
            self._out.flush()

    def tick(self) -> None:
        pass

    def notice(self, text: str) -> None:
        self._write("", text)
        self._out.flush()

    def _show_rare(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._several = len(event.jobs) > 1
                self._write("", f"run {event.run}: {event.name or event.workflow}")
            case JobsPlanned():
                self._several = True
            case JobStarted():
                self._names[event.job] = event.name
                how = f"{event.start} in {event.start_ms:.0f} ms"
                how += f", going on from run {event.resumed}" if event.resumed else ""
                self._write(event.job, f"== job {event.name} on {event.image}, machine {event.machine}, {how}")
            case StepStarted():
                self._running.setdefault(event.job, set()).add(event.step)
                self._write(event.job, f"-- step {event.step + 1}: {event.name}")
            case StepFinished():
                self._running.get(event.job, set()).discard(event.step)
                self._write(event.job, self._step_result(event))
            case Annotation() if event.file or event.title:  # the message itself stands in the log
                self._write(event.job, f"!! {annotation_text(event)}")
            case ArtifactStored():
                self._write(event.job, f"++ artifact {event.path} ({size(event.size)}, sha256 {event.sha256})")
            case JobFinished():
                why = self._why(event)
                name = self._names.get(event.job, event.job)
                self._write(event.job, f"== job {name} {MARKS[event.conclusion]}, {duration(event.seconds)}{why}")
            case RunFinished():
                why = reason(event.conclusion, event.message)
                self._write("", f"run {event.run} {MARKS[event.conclusion]}, {duration(event.seconds)}{why}")

    def _why(self, event: JobFinished) -> str:
        """The message of a job at the end of its last line, unless it stands in its log already."""
        said = "\n".join(self._said.pop(event.job, ()))
        return reason(event.conclusion, event.message) if event.message not in said else ""

    def _step_result(self, event: StepFinished) -> str:
        code = f", exit code {event.exit_code}" if event.exit_code else ""
        mark = FORGIVEN if event.is_forgiven else MARKS[event.conclusion]
        return f"-- step {event.step + 1} {mark}, {duration(event.seconds)}{code}"

    def _write(self, job: str, text: str, *, mark: str = "") -> None:
        """The one place that writes: whatever the text quotes, it stays behind its prefix, and lines that go on are seen to."""
        prefix = f"[{tame(job, colour=False)}] " if job and self._several else ""
        self._out.write(f"{prefix}{mark}{tame_block(text, indent=prefix + (mark or _GOES_ON))}\n")


def reason(conclusion: Conclusion, message: str) -> str:
    """`: why`, or nothing where that is the word for the conclusion once more."""
    return f": {message}" if message.rstrip(".").lower() not in ("", MARKS[conclusion]) else ""


def annotation_text(event: Annotation) -> str:
    """`error: src/main.c:12:5: title: message`, as the guest wrote it: tame it."""
    place = event.file
    if place and event.line is not None:
        place += f":{event.line}" + (f":{event.column}" if event.column is not None else "")
    words = [event.level, place, event.title, event.message]
    return ": ".join(word for word in words if word)
