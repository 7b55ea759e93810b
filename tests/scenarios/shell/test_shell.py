"""The small shell of the scenarios does what it says, and refuses loudly what it does not know."""

from __future__ import annotations

import pytest

from firebrick.guest.client import Agent, Identity
from firebrick.guest.double.agent import GuestDouble
from tests.scenarios.shell import shell_programs


async def run(script: str, *options: str) -> tuple[int | None, str, list[str]]:
    complaints: list[str] = []
    guest = GuestDouble(programs=shell_programs(complaints))
    try:
        async with Agent.connect(guest.connect(), Identity.fresh("t"), timeout=5) as agent:
            await agent.files.write("/tmp/s.sh", script.encode(), parents=True)
            done = await agent.run(["bash", *options, "/tmp/s.sh"])
    finally:
        await guest.close()
    return done.status.code, done.stdout.decode(), complaints


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo a  'b  c' \"d  e\"", "a b  c d  e\n"),
        ("A='x  y'; echo $A \"$A\" ${B:-z} ${B-} ${A:+set}", "x y x  y z set\n"),
        ("echo $(echo one; echo two) \"$(printf 'a\\nb\\n\\n')\"", "one two a\nb\n"),
        ("false; echo $?; true && echo and || echo or; false && echo and || echo or", "1\nand\nor\n"),
        ("if false; then echo 1; elif true; then echo 2; else echo 3; fi", "2\n"),
        ("for x in a $(seq 1 2) 'b c'; do echo \"<$x>\"; done", "<a>\n<1>\n<2>\n<b c>\n"),
        ("cat <<A; cat <<'B'\n$HOME\nA\n$HOME\nB\n", "/root\n$HOME\n"),
        ("{ echo 1; echo 2 >&2; } > /tmp/x 2>&1; cat /tmp/x", "1\n2\n"),
        ("echo a > /tmp/x; echo b >> /tmp/x; cat < /tmp/x", "a\nb\n"),
        ("(echo)", None),
        ("echo one | cat; false | true; echo $?", "one\n0\n"),
        ("set -o pipefail; false | true; echo $?", "1\n"),
        ("cd /tmp; pwd; X=1 printenv X; echo [$X]", "/tmp\n1\n[]\n"),
        ("printf '%s-%s\\n' a b c", "a-b\nc-\n"),
        ("echo a \\\n  b # not this\necho '# this'", "a b\n# this\n"),
        ("test -f /tmp/s.sh && [ 2 -gt 1 ] && test ! -e /none && echo yes", "yes\n"),
    ],
)
async def test_what_it_knows(script: str, said: str | None) -> None:
    code, out, complaints = await run(script)
    if said is None:
        assert (code, len(complaints)) == (125, 1)
    else:
        assert (out, complaints) == (said, [])


@pytest.mark.parametrize(
    ("script", "code"),
    [("false\ntrue", 1), ("false || true", 0), ("! true; true", 0), ("if false; then :; fi", 0), ("x=$(exit 3)", 3)],
)
async def test_with_e_it_ends_at_a_failure(script: str, code: int) -> None:
    assert await run(script, "-e") == (code, "", [])


@pytest.mark.parametrize(
    "script",
    [
        *("echo `date`", "echo $((1+1))", "echo *.c", "case x in x) ;; esac", "sleep 1 &", "f() { :; }", "echo ${A#x}"),
        *(
            "echo -e x",
            "echo 'a\\nb'",
            "printf %5d 1",
            "[[ a ]]",
            "trap ls EXIT",
            "set -u",
            "test a -nt b",
            "echo $'a'",
        ),
        *("cat <<E\nnever", "echo 'open", "if true; then", "kill -9 1", "done"),
    ],
)
async def test_what_it_does_not_know(script: str) -> None:
    code, _, complaints = await run(script)
    assert (code, len(complaints)) == (125, 1)
