"""A run shown: as plain lines, as JSON, and live on a terminal."""

import io
import json
import re

import msgspec
import pytest
from rich.console import Console

from firebrick.cli.board import Board
from firebrick.cli.plain import JsonView, PlainView
from firebrick.cli.view import LiveView
from firebrick.node.event import (
    Annotation,
    ArtifactStored,
    Conclusion,
    JobFinished,
    JobsPlanned,
    JobStarted,
    LogLine,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)


def story(jobs=("build",), failed=False):
    end = Conclusion.FAILURE if failed else Conclusion.SUCCESS
    yield RunStarted(at=1.0, run="r1", workflow="ci", jobs=jobs)
    yield LogLine(at=1.0, job="build", step=-1, stream="node", text="Making the template")
    yield JobStarted(
        at=2.0,
        job="build",
        name="Build it",
        machine="m1",
        image="base",
        start="fork",
        start_ms=123.4,
        steps=("Compile", "Test", "Never"),
    )
    yield StepStarted(at=2.0, job="build", step=0, name="Compile")
    yield LogLine(at=2.1, job="build", step=0, stream="stdout", text="##[group]cc \x1b[2Jmain.c")
    yield LogLine(at=2.1, job="build", step=0, stream="stdout", text="\x1b[31mred\x1b[0m word")
    yield LogLine(at=2.1, job="build", step=0, stream="stdout", text="##[endgroup]")
    yield StepFinished(at=3.0, job="build", step=0, conclusion=Conclusion.SUCCESS, seconds=1.0)
    yield StepStarted(at=3.0, job="build", step=1, name="Test")
    for number in range(50):
        yield LogLine(at=3.1, job="build", step=1, stream="stdout", text=f"test {number}")
    yield Annotation(at=3.2, job="build", step=1, level="error", message="bad", file="a.c", line=3)
    yield StepFinished(at=4.0, job="build", step=1, conclusion=end, seconds=1.0, exit_code=2 if failed else 0)
    yield StepFinished(at=4.0, job="build", step=2, conclusion=Conclusion.SKIPPED, seconds=0.0)
    yield ArtifactStored(at=4.0, job="build", name="out", path="out/prog", size=4300, sha256="ab" * 32)
    yield JobFinished(at=4.0, job="build", conclusion=end, seconds=2.0, outputs={})
    yield RunFinished(at=4.0, run="r1", conclusion=end, seconds=3.0)


def plain(**fields):
    out = io.StringIO()
    with PlainView(out) as view:
        for event in story(**fields):
            view.show(event)
    return out.getvalue().splitlines()


def live(**fields):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system=None)
    with LiveView(console) as view:
        for event in story(**fields):
            view.show(event)
            view.tick()
    return console.file.getvalue()


def test_plain_lines():
    lines = plain(failed=True)
    assert lines[0] == "run r1: ci"
    assert "== job Build it on base, machine m1, fork in 123 ms" in lines
    assert "-- step 2: Test" in lines
    assert "| test 49" in lines
    assert "-- step 2 FAILED, 1.0 s, exit code 2" in lines
    assert "!! error: a.c:3: bad" in lines
    assert f"++ artifact out/prog (4.2 KiB, sha256 {'ab' * 32})" in lines
    assert lines[-2:] == ["== job Build it FAILED, 2.0 s", "run r1 FAILED, 3.0 s"]


def forgiven():
    """The second step fails, and the job goes on."""
    for event in story(failed=True):
        if isinstance(event, StepFinished) and event.step == 1:
            yield msgspec.structs.replace(event, conclusion=Conclusion.SUCCESS, outcome=Conclusion.FAILURE)
        elif isinstance(event, StepFinished | JobFinished | RunFinished):
            yield msgspec.structs.replace(event, conclusion=Conclusion.SUCCESS)
        else:
            yield event


def test_a_failure_that_is_forgiven_is_one_in_every_view():
    out, records = io.StringIO(), io.StringIO()
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system=None)
    with PlainView(out) as lines, JsonView(records) as json_lines, LiveView(console) as on_terminal:
        for event in forgiven():
            for view in (lines, json_lines, on_terminal):
                view.show(event)
    assert "-- step 2 FAILED (continue-on-error), 1.0 s, exit code 2" in out.getvalue().splitlines()
    assert out.getvalue().splitlines()[-1] == "run r1 ok, 3.0 s"
    ended = [json.loads(line) for line in records.getvalue().splitlines() if "step_finished" in line]
    assert [(event["outcome"], event["conclusion"]) for event in ended][1] == ("failure", "success")
    text = console.file.getvalue()
    assert "✗ Test (continue-on-error)" in text
    assert "│ test 49" in text
    assert "✓ ci ok" in text


def test_lines_of_several_jobs_begin_with_theirs():
    assert "[build] | test 7" in plain(jobs=("build", "lint"))


def test_nothing_a_guest_wrote_moves_the_cursor():
    assert not any("\x1b" in line for line in plain())
    assert "\x1b[2Jmain" not in live()


def test_lines_of_steps_that_run_at_once_begin_with_their_number():
    out = io.StringIO()
    with PlainView(out) as view:
        for event in at_once():
            view.show(event)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "|" in line][1:] == [
        "| alone",
        "1| of one",
        "2| of two",
        "| Making",
        "| two alone",
    ]


def test_the_live_view_shows_all_that_runs_and_lets_what_is_over_go():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system=None)
    events = list(at_once())
    with LiveView(console) as view:
        for event in events[:9]:
            view.show(event)
        view.tick()
        now = console.file.getvalue()
        for event in events[9:]:
            view.show(event)
        over = console.file.getvalue()[len(now) :]
        view.tick()
        after = console.file.getvalue()[len(now) + len(over) :]
    assert all(text in now for text in ("Compile", "│ of one", "Test", "│ of two", "· Never"))
    assert "✓ Compile" in over
    assert "Compile" not in after
    assert "│ two alone" in after


def at_once():
    """One step goes on while the next one runs, and ends before it."""
    yield from list(story())[:3]
    yield StepStarted(at=2.0, job="build", step=0, name="Compile")
    yield LogLine(at=2.1, job="build", step=0, stream="stdout", text="alone")
    yield StepStarted(at=2.2, job="build", step=1, name="Test")
    yield LogLine(at=2.3, job="build", step=0, stream="stdout", text="of one")
    yield LogLine(at=2.3, job="build", step=1, stream="stdout", text="of two")
    yield LogLine(at=2.4, job="build", step=-1, stream="node", text="Making")
    yield StepFinished(at=3.0, job="build", step=0, conclusion=Conclusion.SUCCESS, seconds=1.0)
    yield LogLine(at=3.1, job="build", step=1, stream="stdout", text="two alone")


def test_json_is_one_event_a_line():
    out = io.StringIO()
    with JsonView(out) as view:
        for event in story():
            view.show(event)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events[:3]] == ["run_started", "log_line", "job_started"]
    assert events[-1] == {
        "event": "run_finished",
        "at": 4.0,
        "run": "r1",
        "conclusion": "success",
        "seconds": 3.0,
        "message": "",
    }


def test_the_live_view_keeps_one_line_a_step_and_the_end_of_what_failed():
    shown = live(failed=True)
    final = shown[shown.rindex("Build it") - 2000 :]
    assert "✓ Compile" in shown
    assert "✗ Test" in shown
    assert "… 20 lines above" in shown
    assert "│ test 49" in final
    assert "a.c:3: bad" in final
    assert "out/prog" in final
    assert "✗ ci FAILED in 3.0 s" in final


def test_the_live_view_shows_what_runs():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system=None)
    events = list(story())
    with LiveView(console) as view:
        for event in events[:6]:
            view.show(event)
        view.tick()
        now = console.file.getvalue()
    assert "Compile" in now
    assert "▸ cc main.c" in now
    assert "· Test" in now


def test_a_board_knows_jobs_steps_and_notes():
    board = Board()
    events = list(story())
    for event in events[:2]:
        board.show(event)
    assert board.jobs["build"].note == "Making the template"
    for event in events[2:]:
        board.show(event)
    card = board.jobs["build"]
    assert [step.conclusion for step in card.steps] == ["success", "success", "skipped"]
    assert card.steps[1].lines == 50
    assert len(card.steps[1].tail) == 40
    assert next(iter(card.steps[0].tail)).startswith("##[group]")


def test_a_board_names_a_step_that_was_never_heard_of():
    board = Board()
    for event in story():
        board.show(event)
    skipped = {"conclusion": Conclusion.SKIPPED, "seconds": 0.0}
    board.show(StepFinished(at=9.0, job="build", step=3, name="Post Cache", **skipped))
    assert [step.name for step in board.jobs["build"].steps[2:]] == [board.jobs["build"].steps[2].name, "Post Cache"]
    assert board.jobs["build"].steps[2].name not in ("", "step")


HOSTILE = "\x1b]0;PWN\x07\x1b[2J\x9b2Jx\n== job x ok"


def hostile(jobs):
    """A run in which every word of others is hostile."""
    yield RunStarted(at=1.0, run="r1", workflow=HOSTILE, jobs=jobs)
    yield LogLine(at=1.0, job=jobs[0], step=-1, stream="node", text=HOSTILE)
    yield JobStarted(
        at=2.0, job=jobs[0], name=HOSTILE, machine="m1", image=HOSTILE, start="fork", start_ms=1.0, steps=(HOSTILE,)
    )
    yield StepStarted(at=2.0, job=jobs[0], step=0, name=HOSTILE)
    yield LogLine(at=2.1, job=jobs[0], step=0, stream="stdout", text=HOSTILE)
    yield LogLine(at=2.1, job=jobs[0], step=0, stream="stdout", text=f"##[error]{HOSTILE}")
    yield Annotation(at=3.2, job=jobs[0], step=0, level="error", message=HOSTILE, file=HOSTILE, title=HOSTILE)
    failed = Conclusion.FAILURE
    yield StepFinished(at=4.0, job=jobs[0], step=0, conclusion=failed, seconds=1.0, summary=HOSTILE)
    yield ArtifactStored(at=4.0, job=jobs[0], name=HOSTILE, path=HOSTILE, size=1, sha256="ab" * 32)
    yield JobFinished(at=4.0, job=jobs[0], conclusion=failed, seconds=2.0, outputs={}, message=HOSTILE)
    yield RunFinished(at=4.0, run="r1", conclusion=failed, seconds=3.0, message=HOSTILE)


@pytest.mark.parametrize("jobs", [("build",), ("build", "lint"), (f"build ({HOSTILE})", "lint")])
def test_no_word_of_others_is_a_sequence_or_a_line_of_ours(jobs):
    out = io.StringIO()
    with PlainView(out) as view:
        for event in hostile(jobs):
            view.show(event)
    assert "PWN" not in out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out.getvalue())
    forged = [line for line in out.getvalue().splitlines() if line.startswith(("== job x ok", "[build] == job x ok"))]
    assert forged == []


@pytest.mark.parametrize("jobs", [("build",), ("build", "lint")])
def test_the_live_view_shows_words_of_others_as_words(jobs):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=60, color_system=None)
    with LiveView(console) as view:
        for event in hostile(jobs):
            view.show(event)
            rows = console.render_lines(view._render(), pad=False)
            shown = ["".join(segment.text for segment in row) for row in rows]
            assert not any(row.startswith("== job") for row in shown)
            view.tick()
    text = console.file.getvalue()
    assert not re.search(r"PWN|\x9b|\x07|\x1b\[2J\x9b|\x1b\[2Jx", text)
    assert not any(line.startswith("== job x ok") for line in text.splitlines())


def test_json_holds_no_character_a_terminal_obeys():
    out = io.StringIO()
    with JsonView(out) as view:
        for event in hostile(("build",)):
            view.show(event)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out.getvalue())
    assert json.loads(out.getvalue().splitlines()[0])["workflow"] == HOSTILE


def grown():
    """A run whose jobs become more while it goes on."""
    yield RunStarted(at=1.0, run="r1", workflow="ci", jobs=("list", "each", "last"), name="Release of v1")
    yield JobFinished(at=1.5, job="list", conclusion=Conclusion.SUCCESS, seconds=0.5, outputs={})
    yield JobsPlanned(at=2.0, job="each", jobs=("each.0", "each.1"))
    yield JobFinished(at=2.5, job="each.1", conclusion=Conclusion.SUCCESS, seconds=0.5, outputs={})
    yield JobFinished(at=3.0, job="each.0", conclusion=Conclusion.SUCCESS, seconds=1.0, outputs={})


def test_jobs_that_become_several_stand_where_they_were():
    board = Board()
    for event in grown():
        board.show(event)
    assert list(board.jobs) == ["list", "each.0", "each.1", "last"]
    assert board.jobs["each.1"].conclusion is Conclusion.SUCCESS
    assert board.workflow == "Release of v1"


def test_a_run_that_grows_says_of_each_line_which_job_it_is_of():
    out = io.StringIO()
    with PlainView(out) as view:
        view.show(RunStarted(at=1.0, run="r1", workflow="ci", jobs=("each",), name="Release of v1"))
        view.show(JobsPlanned(at=2.0, job="each", jobs=("each.0", "each.1")))
        view.show(LogLine(at=2.0, job="each.1", step=0, stream="stdout", text="hello"))
    assert out.getvalue().splitlines() == ["run r1: Release of v1", "[each.1] | hello"]


@pytest.mark.parametrize("said", [True, False])
def test_why_a_job_failed_is_said_once(said):
    message = "no image for `runs-on: x`.\nMake one"
    out = io.StringIO()
    with PlainView(out) as view:
        for line in message.splitlines() if said else ():
            view.show(LogLine(at=1.0, job="build", step=-1, stream="node", text=line))
        view.show(LogLine(at=1.0, job="build", step=-1, stream="node", text="the console"))
        end = JobFinished(at=2.0, job="build", conclusion=Conclusion.FAILURE, seconds=1.0, outputs={}, message=message)
        view.show(end)
    lines = out.getvalue().splitlines()
    assert sum("no image for" in line for line in lines) == 1
    assert lines[-1 if said else -2].startswith("== job build FAILED, 1.0 s")


def cancelled():
    yield from list(story())[:-6]
    yield Annotation(at=3.2, job="build", step=1, level="error", message="The operation was canceled.")
    yield StepFinished(at=4.0, job="build", step=1, conclusion=Conclusion.CANCELLED, seconds=1.0)
    end = Conclusion.CANCELLED
    yield JobFinished(at=4.0, job="build", conclusion=end, seconds=2.0, outputs={}, message="Cancelled.")
    yield RunFinished(at=4.0, run="r1", conclusion=end, seconds=3.0, message="Cancelled.")


def test_what_was_cancelled_is_named_and_said_once():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with LiveView(console) as view:
        for event in cancelled():
            view.show(event)
    assert "Test: error: The operation was canceled." in out.getvalue()
    assert "■ ci cancelled in 3.0 s" in out.getvalue()
    assert "Cancelled." not in out.getvalue()
    out = io.StringIO()
    with PlainView(out) as plainly:
        for event in cancelled():
            plainly.show(event)
    assert out.getvalue().splitlines()[-1] == "run r1 cancelled, 3.0 s"
