"""The log file: numbered, bounded, whole after a crash, and read by followers at their own pace."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from firebrick.server.log import BuildLog, LogReader, _mend, open_log, read_tail, read_text


def quiet() -> None:
    pass


def add(log: BuildLog, text: str) -> None:
    log.add(at=1.0, job="build", step=0, stream="stdout", text=text)


def read_all(path: Path, after: int = 0) -> list[dict[str, object]]:
    reader = LogReader(path, after)
    found = []
    while lines := reader.read():
        found += [json.loads(line) for line in lines]
    reader.close()
    return found


async def text(path: Path) -> str:
    return "".join([part async for part in read_text(path)])


async def test_lines_are_numbered_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        log.say("one\ntwo")
        add(log, "three")
        log.say("")
    assert [(r["n"], r["stream"], r["text"]) for r in read_all(path)] == [
        (1, "server", "one"),
        (2, "server", "two"),
        (3, "stdout", "three"),
        (4, "server", ""),
    ]
    assert await text(path) == "one\ntwo\nthree\n\n"


async def test_followers_are_told_when_the_loop_comes_round(tmp_path: Path) -> None:
    told = asyncio.Event()
    with open_log(tmp_path / "log", limit_mib=1, on_flush=told.set) as log:
        add(log, "x")
        assert not told.is_set()
        await asyncio.wait_for(told.wait(), 5)
        assert len(read_all(tmp_path / "log")) == 1


async def test_a_reopened_log_goes_on_behind_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        log.say("one")
    with path.open("ab") as file:
        file.write(b'{"n":2,"at":0,"text":"tor')
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        log.say("two")
    assert [(r["n"], r["text"]) for r in read_all(path)] == [(1, "one"), (2, "two")]


async def test_a_full_log_says_so_once_and_still_says_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        for _ in range(40):
            add(log, "x" * 65536)
        log.say("the end")
    records = read_all(path)
    assert path.stat().st_size < 3 << 19
    assert [str(r["text"])[:11] for r in records if r["stream"] == "server"] == ["The log has", "the end"]


async def test_one_endless_line_is_broken_up(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, limit_mib=2, on_flush=quiet) as log:
        add(log, "y" * 150_000)
    assert [len(str(r["text"])) for r in read_all(path)] == [65536, 65536, 150_000 - 2 * 65536]


async def test_text_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        add(log, "half \ud800 a pair\u2028 \x00")
    assert read_all(path)[0]["text"] == "half ? a pair\u2028 \x00"


async def test_the_tail_is_bounded_and_begins_with_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_tail(path, 100).text == ""
    with open_log(path, limit_mib=1, on_flush=quiet) as log:
        for number in range(1000):
            add(log, f"line {number}")
    tail = read_tail(path, 1000)
    assert tail.truncated
    assert 1 < len(tail.text.splitlines()) < 20
    assert all(line.startswith("line ") for line in tail.text.splitlines())
    assert tail.text.endswith("line 999\n")
    assert not read_tail(path, 1 << 20).truncated


async def test_a_reader_may_come_before_the_file_and_between_two_halves_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path)
    assert reader.read() == []
    with path.open("ab", buffering=0) as file:
        file.write(b"on")
        assert reader.read() == []
        file.write(b"e\ntw")
        assert (reader.read(), reader.line) == ([b"one"], 1)
        assert reader.read() == []
        file.write(b"o\n")
        assert (reader.read(), reader.line) == ([b"two"], 2)
    reader.close()


@settings(max_examples=50)
@given(lines=st.lists(st.text(alphabet="ab", max_size=3000), max_size=200), after=st.integers(0, 220))
def test_reading_behind_a_line_gives_the_rest(tmp_path_factory, lines: list[str], after: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_text("".join(f"{line}\n" for line in lines))
    reader = LogReader(path, after)
    found: list[str] = []
    while part := reader.read():
        found += [line.decode() for line in part]
        assert reader.line == after + len(found)
    reader.close()
    assert found == lines[after:]


@given(st.binary(max_size=200))
def test_mending_keeps_whole_lines_only(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(data)
    with open(path, "ab+", buffering=0) as file:
        lines, size = _mend(file)
    kept = path.read_bytes()
    assert (lines, size) == (data.count(b"\n"), len(kept))
    assert data.startswith(kept)
    assert kept == b"" or kept.endswith(b"\n")
