import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firebrick import process
from firebrick.process import OutputLimitError, ProcessError, ProcessTimeoutError, ProgramNotFoundError, run, spawn
from firebrick.task import shielded


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    """The kernel carries out a kill in its own time."""
    async with asyncio.timeout(5):
        while alive(pid):
            await asyncio.sleep(0.01)


async def test_output_and_input_pass_through():
    done = await run(["cat"], input=b"x" * 300_000)
    assert done.stdout == b"x" * 300_000
    assert done.returncode == 0


async def test_a_failure_carries_the_last_words_and_the_hint():
    with pytest.raises(ProcessError) as caught:
        await run(["sh", "-c", "echo no such luck >&2; exit 3"], hint="Try again.")
    assert "status 3" in str(caught.value)
    assert str(caught.value).endswith("no such luck")
    assert caught.value.hint == "Try again."
    assert caught.value.returncode == 3


async def test_a_status_can_be_the_answer():
    assert (await run(["sh", "-c", "exit 7"], check=False)).returncode == 7


async def test_death_by_signal_is_named():
    with pytest.raises(ProcessError, match="SIGUSR1"):
        await run(["sh", "-c", "kill -USR1 $$"])


async def test_a_missing_program_is_said():
    with pytest.raises(ProgramNotFoundError, match="no-such-program-here"):
        await run(["no-such-program-here"])


async def test_a_timeout_kills():
    before = asyncio.get_running_loop().time()
    with pytest.raises(ProcessTimeoutError, match=r"0\.2 s"):
        await run(["sleep", "60"], timeout=0.2)
    assert asyncio.get_running_loop().time() - before < 3


async def test_output_is_bounded():
    with pytest.raises(OutputLimitError):
        await run(["cat", "/dev/zero"], limit=1 << 20)


async def test_the_environment_is_clean(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    done = await run(["env"], env={"GIVEN": "2"})
    names = {line.split("=")[0] for line in done.text.splitlines()}
    assert "GIVEN" in names
    assert "SECRET_OF_THE_HOST" not in names
    assert names <= {"GIVEN", "PATH", "LANG", *process._INHERITED}


async def test_what_the_program_leaves_behind_is_ended_with_it():
    done = await run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"])
    await gone(int(done.text))


async def test_a_daemon_that_keeps_the_pipe_does_not_hold_run_back(tmp_path: Path):
    os.mkfifo(
        tmp_path / "away"
    )  # who has started it ends when it is in a session of its own: before, it would end with it
    daemon = 'echo $$; : > "$0"; exec sleep 20'
    script = 'setsid --fork sh -c "$1" "$0"; cat "$0"'
    done = await run(["sh", "-c", script, tmp_path / "away", daemon], timeout=10)
    os.kill(int(done.text), signal.SIGKILL)


async def test_leaving_spawn_terminates_then_kills_and_leaks_no_descriptor():
    await run(["true"])
    before = open_fds()
    async with spawn(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=process.PIPE, grace=0.1
    ) as p:
        assert p.stdout is not None
        assert await p.stdout.readline() == b"ready\n"
        assert p.returncode is None
    assert p.returncode == -signal.SIGKILL
    assert not alive(p.pid)
    assert open_fds() == before


async def test_cancelling_run_kills_and_leaks_no_descriptor():
    await run(["true"])
    before, others = open_fds(), set(_children())  # those of fixtures that last
    task = asyncio.create_task(run(["sleep", "60"]))
    while not any(_argv(pid)[:1] == [b"/usr/bin/sleep"] for pid in _children() if pid not in others):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_fds() == before
    assert set(_children()) <= others


@pytest.mark.parametrize("tethered", [True, False])
async def test_the_program_dies_with_its_owner(tethered: bool):
    """By the tether, or by setpriv where nothing was built yet."""
    code = (
        "import asyncio, os, signal\n"
        "from firebrick import process\n"
        "from firebrick.process import spawn\n"
        f"process._TETHERED = {tethered}\n"
        "async def main():\n"
        "    async with spawn(['sleep', '60']) as p:\n"
        "        while not open(f'/proc/{p.pid}/cmdline').read().endswith('sleep\\0' + '60\\0'): pass\n"
        "        while not open(f'/proc/{p.pid}/cmdline', 'rb').read().startswith(b'/usr/bin/sleep'): await asyncio.sleep(0.01)\n"
        "        print(p.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = await run([sys.executable, "-c", code], check=False)
    await gone(int(done.text))


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ([], 2, "usage: firebrick-tether PARENT PROGRAM"),
        (["0", "/bin/true"], 2, "not the number of a process: 0"),
        (["1", "/bin/true"], 126, "process 1 is gone, or not this one's parent"),
        (["parent", "/nowhere"], 127, "cannot run /nowhere: No such file or directory"),
        (["parent", "/etc/passwd"], 126, "cannot run /etc/passwd: Permission denied"),
        (["parent", "/bin/false"], 1, ""),
    ],
)
def test_the_tether_says_why_it_has_become_nothing(argv: list[str], status: int, said: str):
    words = [str(os.getpid()) if word == "parent" else word for word in argv]
    done = subprocess.run([process._TETHER, *words], check=False, capture_output=True, text=True)
    assert (done.returncode, bool(done.stderr)) == (status, bool(said))
    assert said in done.stderr


async def test_shielded_work_finishes_before_the_cancellation_is_delivered():
    steps = []

    async def work():
        steps.append("begun")
        await asyncio.sleep(0.05)
        steps.append("done")

    task = asyncio.create_task(shielded(work()))
    while not steps:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["begun", "done"]


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as f:
        return [int(pid) for pid in f.read().split()]


def _argv(pid: int) -> list[bytes]:
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        return f.read().split(b"\0")
