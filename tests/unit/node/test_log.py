"""The log of a job: what is an annotation and what is only a line, and lines that come together."""

from firebrick.node.event import Annotation, LogLine
from firebrick.node.log import JobLog
from firebrick.workflow.command.command import Message


def log(**fields):
    events = []
    return JobLog("build", events.append, **{"limit": 1 << 20, **fields}), events


def annotations(events):
    return [event for event in events if isinstance(event, Annotation)]


def test_ten_annotations_of_a_level_in_a_step():
    job, events = log()
    for number in range(12):
        job.annotate(0, Message(level="warning", message=str(number)))
    job.annotate(0, Message(level="error", message="another level"))
    job.annotate(1, Message(level="warning", message="another step"))
    assert [each.message for each in annotations(events)] == [*map(str, range(10)), "another level", "another step"]
    assert sum(isinstance(event, LogLine) for event in events) == 14


def test_fifty_annotations_in_a_job():
    job, events = log()
    for step in range(6):
        for _ in range(10):
            job.annotate(step, Message(level="error", message="x"))
    assert len(annotations(events)) == 50
    assert not job.annotates(7, "notice")


def test_a_message_is_bounded_after_it_is_masked():
    job, events = log(secrets=["s3cr3t"])
    job.annotate(0, Message(level="error", message="s3cr3t" * 1000 + "x" * 5000, title="t" * 5000))
    (told,) = annotations(events)
    assert told.message.startswith("***x")
    assert (len(told.message), len(told.title)) == (4096, 4096)


def test_what_is_shown_may_be_more_than_the_message():
    job, events = log()
    job.annotate(0, Message(level="error", message="m", shown="a.c:1: m"))
    assert (events[0].text, events[1].message) == ("##[error]a.c:1: m", "m")


def test_lines_together_are_as_each_alone():
    texts = ["one", "", "two s3cr3t", "x" * 100] * 3
    whole, events = log(secrets=["s3cr3t"], limit=300)
    whole.lines(0, texts)
    single, expected = log(secrets=["s3cr3t"], limit=300)
    for text in texts:
        single.line(0, text)
    assert [event.text for event in events] == [event.text for event in expected]
    assert "has reached its limit" in events[-1].text


def test_debug_messages_are_shown_where_that_is_asked_for():
    for debugging, shown in ((False, []), (True, ["##[debug]deep"])):
        job, events = log(debugging=debugging)
        job.debug(0, "deep")
        assert [event.text for event in events] == shown
