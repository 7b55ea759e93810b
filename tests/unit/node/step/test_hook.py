"""Scripts that every job runs before its first step and after its last one."""

from firebrick.node.event import CancelCause, LogLine
from firebrick.node.settings import NodeSettings

STEPS = "on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: echo step $FROM_HOOK\n"
AFTER = "      - if: always()\n        run: echo always\n"


def settings(**fields):
    return NodeSettings(interrupt_s=0.05, terminate_s=0.05, cancel_s=1.0, **fields)


async def test_hooks_of_the_settings_run_around_the_steps(bed):
    bed.settings = settings(job_started="/opt/start.sh", job_completed="/opt/end.sh")
    bed.lender.files = {
        "/opt/start.sh": "echo begins\npwd\necho FROM_HOOK=1 >> $GITHUB_ENV\necho ::notice::said",
        "/opt/end.sh": "echo ends",
    }
    told = await bed.run(STEPS)
    assert told.result.conclusion == "success"
    assert [line.text for line in told.events if isinstance(line, LogLine) and line.stream == "stdout"] == [
        "begins",
        "/home/runner/work/hello/hello",
        "##[notice]said",
        "step 1",
        "ends",
    ]
    assert told.lines(step=-1)[:2] == ["ACTIONS_RUNNER_HOOK_JOB_STARTED: /opt/start.sh", "begins"]
    assert [each.message for each in told.annotations()] == ["said"]


async def test_hooks_of_the_image(bed):
    bed.lender.files = {
        "/etc/environment": 'LANG=C\n# no hook\nexport ACTIONS_RUNNER_HOOK_JOB_COMPLETED="/opt/end.sh"\n',
        "/opt/end.sh": "echo ends",
    }
    told = await bed.run(STEPS)
    assert told.lines(step=-1) == ["ACTIONS_RUNNER_HOOK_JOB_COMPLETED: /opt/end.sh", "ends"]


async def test_a_hook_that_fails_fails_the_job(bed):
    bed.settings = settings(job_started="/opt/start.sh")
    bed.lender.files = {"/opt/start.sh": "exit 3"}
    told = await bed.run(STEPS + AFTER)
    assert told.steps() == ["skipped", "success"]
    assert told.jobs() == {"build": "failure"}
    assert [each.message for each in told.annotations()] == ["Process completed with exit code 3."]


async def test_a_hook_that_is_not_there_fails_the_job(bed):
    for name, message in (
        ("/opt/missing.sh", "the hook '/opt/missing.sh' cannot be run: there is no such file in the machine"),
        ("hook.sh", "the hook 'hook.sh' cannot be run. Name a file of the machine by its absolute path."),
    ):
        bed.settings = settings(job_completed=name)
        told = await bed.run(STEPS)
        assert told.steps() == ["success"]
        assert told.jobs() == {"build": "failure"}
        assert [each.message for each in told.annotations()] == [message]


async def test_the_hook_at_the_end_runs_in_a_job_that_is_cancelled(bed):
    bed.settings = settings(job_completed="/opt/end.sh")
    bed.lender.files = {"/opt/end.sh": "echo ends"}
    text = "on: push\njobs: {build: {runs-on: base, steps: [{run: wait}]}}\n"
    async with bed.live(text) as run:
        lines = []
        async for event in run.events():
            if isinstance(event, LogLine):
                lines.append(event.text)
            if type(event).__name__ == "StepStarted":
                run.cancel(CancelCause.USER)
    assert lines[-1] == "ends"
