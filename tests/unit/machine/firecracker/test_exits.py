import pytest

from firebrick.machine import ExitCause
from firebrick.machine.firecracker.exits import Evidence, judge

PANIC = "[    1.0] Kernel panic - not syncing: Attempted to kill init!\r\n[ 1.1] ..."
OK_LOG = "2026 [x:main:INFO] Firecracker exiting successfully. exit_code=0"


@pytest.mark.parametrize(
    ("evidence", "cause", "words"),
    [
        (Evidence(status=0), ExitCause.REBOOT, "rebooted"),
        (Evidence(status=0, console=PANIC), ExitCause.PANIC, "Attempted to kill init!"),
        (Evidence(status=-9, killed=True), ExitCause.KILLED, "it was killed"),
        (Evidence(status=-15, killed=True), ExitCause.KILLED, "it was killed"),
        (Evidence(status=143, killed=True), ExitCause.KILLED, "it was killed"),
        (Evidence(status=None, killed=True), ExitCause.KILLED, "it was killed"),
        (Evidence(status=0, killed=True), ExitCause.REBOOT, "rebooted"),
        (Evidence(status=-9, failure="its page server ended"), ExitCause.CRASHED, "ended: its page server"),
        (Evidence(status=-9, starved=True), ExitCause.OUT_OF_MEMORY, "used up what memory"),
        (Evidence(status=0, starved=True), ExitCause.REBOOT, "rebooted"),
        (Evidence(status=-9), ExitCause.OUT_OF_MEMORY, "want of memory"),
        (Evidence(status=137), ExitCause.OUT_OF_MEMORY, "want of memory"),
        (Evidence(status=143), ExitCause.KILLED, "told Firecracker to end"),
        (Evidence(status=148), ExitCause.SECCOMP, "seccomp"),
        (Evidence(status=149), ExitCause.OUT_OF_MEMORY, "SIGBUS"),
        (Evidence(status=150), ExitCause.CRASHED, "SIGSEGV"),
        (Evidence(status=151), ExitCause.FILE_LIMIT, "SIGXFSZ"),
        (Evidence(status=152, complaints="a\nbad json"), ExitCause.BAD_CONFIGURATION, "configuration: bad json"),
        (Evidence(status=153), ExitCause.BAD_CONFIGURATION, "arguments"),
        (Evidence(status=154), ExitCause.CRASHED, "SIGXCPU"),
        (Evidence(status=156), ExitCause.CRASHED, "SIGHUP"),
        (Evidence(status=157), ExitCause.CRASHED, "SIGILL"),
        (
            Evidence(status=1, log="x:ERROR] Error: no tap\n"),
            ExitCause.CRASHED,
            "with status 1: x:ERROR] Error: no tap",
        ),
        (Evidence(status=-11), ExitCause.CRASHED, "signal 11"),
        (Evidence(status=-40), ExitCause.CRASHED, "signal 40"),
        (Evidence(status=None, log=OK_LOG), ExitCause.REBOOT, "rebooted"),
        (Evidence(status=None, log="Firecracker exiting with error. exit_code=148"), ExitCause.SECCOMP, "seccomp"),
        (Evidence(status=None), ExitCause.CRASHED, "not known"),
    ],
)
def test_how_it_ended(evidence, cause, words):
    end = judge(evidence)
    assert end.cause is cause
    assert words in end.message
