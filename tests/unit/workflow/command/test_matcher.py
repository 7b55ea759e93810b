"""Problem matchers: their files, mistake by mistake; how problems of one and of several lines are found; and that no expression is slow."""

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firebrick.workflow.command.matcher import Hit, MatcherError, MatcherSet, plain
from firebrick.workflow.command.matcher_file import parse_matchers


def pattern(regexp, **more):
    return {"regexp": regexp, **more}


def matchers(*patterns, owner="tool", **more):
    return parse_matchers(json.dumps({"problemMatcher": [{"owner": owner, "pattern": patterns, **more}]}).encode())


def found(lines, *matchers_):
    """What a set of these matchers, the first added first, finds in the lines."""
    known = MatcherSet()
    for each in matchers_:
        known.add(each)
    reader = known.reader()
    return [hit for line in lines if (hit := reader.feed(line)[0]) is not None]


# --- tools as they are ---

GCC = matchers(
    pattern(r"^(.+?):(\d+):(\d+): (error|warning): (.+)$", file=1, line=2, column=3, severity=4, message=5), owner="gcc"
)
TSC = matchers(
    pattern(
        r"^(.+)\((\d+),(\d+)\): (error|warning) (TS\d+): (.+)$",
        file=1,
        line=2,
        column=3,
        severity=4,
        code=5,
        message=6,
    ),
    owner="tsc",
)
GO = matchers(
    pattern(r"^\s*(\.{0,2}[\/\\].+\.go):(?:(\d+):(\d+):)? (.*)", file=1, line=2, column=3, message=4), owner="go"
)
ESLINT = matchers(
    pattern(r"^([^\s].*)$", file=1),
    pattern(
        r"^\s+(\d+):(\d+)\s+(error|warning|info)\s+(.*)\s\s+(.*)$",
        line=1,
        column=2,
        severity=3,
        message=4,
        code=5,
        loop=True,
    ),
    owner="eslint-stylish",
)
PYTHON = matchers(
    pattern(r"^  File \"(.+)\", line (\d+), in .+$", file=1, line=2),
    pattern(r"^    .+$"),
    pattern(r"^(\w*(?:Error|Exception): .+)$", message=1),
    owner="python",
)
RUSTC = matchers(
    pattern(r"^(warning|error)(?:\[(E\d+)\])?: (.+)$", severity=1, code=2, message=3),
    pattern(r"^\s+--> (.+):(\d+):(\d+)$", file=1, line=2, column=3),
    owner="rustc",
)


@pytest.mark.parametrize(
    ("tool", "text", "hits"),
    [
        (
            GCC,
            "a.c: In function 'f':\na.c:3:7: error: 'x' undeclared\na.c:4:1: note: declared here",
            [Hit(severity="error", message="'x' undeclared", file="a.c", line=3, column=7)],
        ),
        (
            TSC,
            "src/a.ts(1,2): error TS2304: Cannot find name 'x'.",
            [Hit(severity="error", message="Cannot find name 'x'.", file="src/a.ts", line=1, column=2, code="TS2304")],
        ),
        (
            GO,
            "# example.org/x\n./main.go:7:2: undefined: y",
            [Hit(severity="error", message="undefined: y", file="./main.go", line=7, column=2)],
        ),
        (
            ESLINT,
            "a.js\n  1:0  error  One  r1\n  2:5  warning  Two  r2\n\nb.js\n  3:1  error  Three  r3\n\n  4:1  error  Of nothing  r",
            [
                Hit(severity="error", message="One", file="a.js", line=1, column=0, code="r1"),
                Hit(severity="warning", message="Two", file="a.js", line=2, column=5, code="r2"),
                Hit(severity="error", message="Three", file="b.js", line=3, column=1, code="r3"),
            ],
        ),
        (
            PYTHON,
            'Traceback:\n  File "a.py", line 9, in <module>\n    f()\n  File "b.py", line 2, in f\n    raise X\nValueError: no',
            [Hit(severity="error", message="ValueError: no", file="b.py", line=2)],
        ),
        (
            RUSTC,
            "warning: unused variable: `x`\n  --> src/main.rs:2:9\nerror[E0425]: cannot find value\n  --> src/main.rs:3:5",
            [
                Hit(severity="warning", message="unused variable: `x`", file="src/main.rs", line=2, column=9),
                Hit(severity="error", message="cannot find value", file="src/main.rs", line=3, column=5, code="E0425"),
            ],
        ),
    ],
    ids=["gcc", "tsc", "go", "eslint", "python", "rustc"],
)
def test_tools(tool, text, hits):
    assert found(text.split("\n"), tool) == hits


# --- one and several lines ---


def test_a_line_between_ends_what_had_begun():
    two = matchers(pattern("^begin (.*)$", file=1), pattern("^end (.*)$", message=1))
    assert [hit.file for hit in found(["begin a", "other", "end x", "begin b", "end y"], two)] == ["b"]


def test_a_line_that_begins_anew_while_another_goes_on():
    two = matchers(pattern("^file (.*)$", file=1), pattern("^(?:file|error) (.*)$", message=1))
    assert found(["file a", "file b"], two) == [Hit(severity="error", message="b", file="a")]


def test_the_earlier_line_decides_what_both_say():
    loop = matchers(
        pattern("^(E|W) (.*)$", severity=1, file=2), pattern("^ (.*)$", message=1, loop=True), severity="notice"
    )
    assert found(["E a", " one"], loop) == []  # E is no severity
    three = matchers(pattern("^a (.*)$", file=1), pattern("^b$"), pattern("^c (.*)$", message=1))
    assert found(["a x", "b", "c y", "c z"], three) == [Hit(severity="error", message="y", file="x")]


def test_a_hit_ends_what_others_had_begun():
    two = matchers(pattern("^begin$"), pattern("^end (.*)$", message=1), owner="two")
    one = matchers(pattern("^!(.*)$", message=1), owner="one")
    assert [hit.message for hit in found(["begin", "!x", "end y"], two, one)] == ["x"]


def test_the_newest_comes_first_and_replaces_its_owners():
    old = matchers(pattern("^(.*)$", message=1), owner="A", severity="notice")
    new = matchers(pattern("^(.*)$", message=1), owner="a", severity="warning")
    other = matchers(pattern("^x(.*)$", message=1), owner="b")
    assert found(["xy"], old, other)[0] == Hit(severity="error", message="y")
    known = MatcherSet()
    for each in (old, other, new):
        known.add(each)
    assert known.owners == ("a", "b")
    assert known.remove(["B", "nobody"]) == ("b",)
    known.add(matchers(owner="a"))
    assert not known


def test_a_step_begins_with_nothing():
    known = MatcherSet()
    known.add(matchers(pattern("^begin$"), pattern("^end (.*)$", message=1)))
    known.reader().feed("begin")
    assert known.reader().feed("end x") == (None, ())


def test_the_lines_of_steps_that_run_at_once_do_not_mix():
    known = MatcherSet()
    known.add(matchers(pattern("^begin$"), pattern("^end (.*)$", message=1)))
    one, other = known.reader(), known.reader()
    one.feed("begin")
    assert other.feed("end x") == (None, ())
    assert one.feed("end x")[0] == Hit(severity="error", message="x")


def test_what_one_step_adds_is_looked_for_in_all_that_run():
    known = MatcherSet()
    reader = known.reader()
    assert reader.feed("x") == (None, ())
    known.add(matchers(pattern("^(x)$", message=1)))
    assert reader.feed("x")[0] == Hit(severity="error", message="x")


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("ERROR: a", Hit(severity="error", message="a")),
        ("Notice: a", Hit(severity="notice", message="a")),
        ("info: a", None),
        (": a", Hit(severity="warning", message="a")),
        ("error:   ", None),
    ],
)
def test_severities(line, hit):
    tool = matchers(pattern(r"^(\w*): (.*)$", severity=1, message=2), severity="WARNING")
    assert found([line], tool) == ([hit] if hit else [])


def test_places_that_are_no_numbers_are_none():
    tool = matchers(pattern(r"^(\w*):(\w*):(.*)$", line=1, column=2, message=3))
    assert found(["x:7:m", "007:1234567890:m"], tool) == [
        Hit(severity="error", message="m", column=7),
        Hit(severity="error", message="m", line=7),
    ]


def test_colours_are_taken_out_and_bytes_are_characters():
    tool = matchers(pattern("^é(.)ü: (.*)$", file=1, message=2))
    assert found(["\x1b[1;31mé€ü\x1b[0m:\x1b[K ß"], tool) == [Hit(severity="error", message="ß", file="€")]
    assert plain("\x1b[91mred\x1b[m") == "red"


@pytest.mark.parametrize(
    ("regexp", "line"),
    [
        (r"^\u00e9\u001b(.*)$", "é\x1bx"),
        (r"^\e(.*)\Z", "\x1bx"),
        (r"^\<a\>(.*)", "<a>x"),
        (r"^\\u0041(.*)", "\\u0041x"),
    ],
)
def test_what_others_write_differently(regexp, line):
    known = matchers(pattern(regexp, message=1))
    assert known[0].patterns[0].search(line.encode()) == {"message": "x"}


# --- files ---


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "must hold an object with a list 'problemMatcher'"),
        ('{"problemMatcher": []}', "must hold an object with a list 'problemMatcher'"),
        ("{", "The file is no JSON"),
        ("[" * 100_000, "The file is no JSON"),
        ('{"problemMatcher": [1]}', "Matcher 1 is no object."),
        ('{"problemMatcher": [{"owner": 1}]}', "'owner' must be a text. Matcher 1: 'owner' must be set."),
        ('{"problemMatcher": [{"owner": "a", "severity": "bad"}]}', "'severity' contains unexpected value 'bad'"),
        ('{"problemMatcher": [{"owner": "a"}, {"owner": "A"}]}', "The owner 'a' has two matchers."),
        ('{"problemMatcher": [{"owner": "a", "pattern": 3}]}', "'pattern' must be a list"),
        ('{"problemMatcher": [{"owner": "a", "pattern": ["x"]}]}', "pattern 1 is no object."),
    ],
)
def test_files_that_are_none(content, told):
    with pytest.raises(MatcherError) as caught:
        parse_matchers(content.encode())
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        ([pattern("(a)", file=1)], "at least one pattern must set 'message'"),
        ([pattern("(a)", message=2)], "'message' is group 2, and the expression has 1."),
        ([pattern("(a)", message=-1)], "'message' must be the number of a group."),
        ([pattern("(a)", message=True)], "'message' must be the number of a group."),
        ([pattern("(a)", message=1), pattern("(b)", message=1)], "'message' is set by an earlier pattern already."),
        ([pattern("(a)", message=1, loop=True)], "only the last of several patterns may set 'loop'."),
        ([pattern("(a)", message=1, loop=True), pattern("b")], "only the last of several patterns may set 'loop'."),
        ([pattern("(a)", message=1), pattern("b", loop=True)], "a pattern that sets 'loop' must set 'message'."),
        ([pattern("(a)", message=1, loop="yes")], "'loop' must be true or false."),
        ([pattern("", message=0)], "'regexp' must be a text of 1 to 4096 characters."),
        ([{"message": 0}], "'regexp' must be a text of 1 to 4096 characters."),
        ([pattern("x" * 5000, message=0)], "'regexp' must be a text of 1 to 4096 characters."),
        ([pattern("(a", message=0)], "'regexp' cannot be used: missing ): (a."),
        ([pattern("(?<!x)a", message=0)], "Look-ahead, look-behind and references back are not available"),
        ([pattern(r"(a)\1", message=0)], "Look-ahead, look-behind and references back are not available"),
        ([pattern("(?:(?:a?){60}){15}", message=0)], "is too large"),
        ([pattern("a", message=0)] * 65, "this and the matchers before it have more than 64 patterns."),
    ],
)
def test_patterns_that_are_none(patterns, told):
    with pytest.raises(MatcherError) as caught:
        matchers(*patterns)
    assert told in str(caught.value)


def test_all_mistakes_at_once():
    with pytest.raises(MatcherError) as caught:
        matchers(pattern("(a", line=1), pattern("b", column=1), owner="", severity="x")
    assert len(caught.value.problems) == 5


def test_a_file_that_is_too_large():
    with pytest.raises(MatcherError, match="more than 256 KiB"):
        parse_matchers(b" " * (257 << 10))


def test_a_job_has_no_more_than_so_many():
    known = MatcherSet()
    for number in range(64):
        known.add(matchers(pattern("a", message=0), owner=f"o{number}"))
    with pytest.raises(MatcherError, match="at most 64 matchers of 64 patterns"):
        known.add(matchers(pattern("a", message=0), owner="one more"))
    known.add(matchers(pattern("b", message=0), owner="o1"))
    assert len(known.owners) == 64


def test_a_job_names_no_more_than_so_many_files():
    known = MatcherSet()
    for _ in range(100):
        known.count_file()
    with pytest.raises(MatcherError, match="100 files of matchers"):
        known.count_file()


# --- time ---


class Clock:
    """Processor time that passes by `step` between two looks."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def test_the_third_slow_line_is_a_matchers_last():
    clock = Clock(0.2)
    known = MatcherSet(clock)
    known.add((*matchers(pattern("^x", message=0), owner="slow"),))
    reader = known.reader()
    assert [reader.feed("a")[1] for _ in range(3)] == [(), (), ("slow",)]
    assert not known


def test_a_job_whose_matchers_are_slow_for_ever_has_none_any_more():
    known = MatcherSet(Clock(0.2))
    for number in range(30):
        known.add(matchers(pattern("^x", message=0), owner=f"o{number}"))
        known.reader().feed("a")
        if number < 28:
            known.remove([f"o{number}"])
    with pytest.raises(MatcherError, match="slow too often"):
        known.add(matchers(pattern("^x", message=0)))


@pytest.mark.parametrize("regexp", ["(a*)*b", "(a|a?)+$b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.*)(.*)(.*)(.*)(.*)(.*)x"])
def test_expressions_that_take_for_ever_elsewhere(regexp):
    known = MatcherSet()
    known.add(matchers(pattern(regexp, message=0)))
    began = time.thread_time()
    for _ in range(20):
        known.reader().feed("a" * 60_000)
    assert time.thread_time() - began < 2.0


@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=5))
def test_no_expression_and_no_line_is_a_crash(regexp, lines):
    try:
        known = matchers(pattern(regexp, message=0), pattern("b", file=0))
    except MatcherError:
        return
    found(lines, known)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["problemMatcher", "owner", "pattern", "regexp", "message", "loop"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_file_is_a_crash(data):
    with contextlib.suppress(MatcherError):
        assert parse_matchers(data)
