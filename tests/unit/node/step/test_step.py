"""One step: shells, commands, masks, files, limits."""

import hashlib

import pytest

from firebrick.guest import message
from firebrick.guest.double import GuestDouble
from firebrick.guest.double.exchange import Exchange
from firebrick.node.event import Annotation, LogLine, StepFinished, StepStarted
from firebrick.node.lines import CONTINUED
from firebrick.node.step.filecommand import StepFiles


def job(*steps: str, before: str = "") -> str:
    listed = "".join(f"      - {step}\n" for step in steps)
    return f"on: push\n{before}jobs:\n  build:\n    runs-on: base\n    steps:\n{listed}"


async def test_commands_become_annotations_and_groups(bed):
    told = await bed.run(
        job(
            "run: |\n"
            "          echo ::group::Compile\n"
            "          echo ::error file=/home/runner/work/hello/hello/src/a.c,line=3,col=7::bad thing\n"
            "          echo ::endgroup::\n"
            "          echo ::warning title=Old::deprecated"
        )
    )
    assert told.lines(step=0) == ["##[group]Compile", "##[error]bad thing", "##[endgroup]", "##[warning]deprecated"]
    error, warning = told.annotations()
    assert (error.level, error.file, error.line, error.column, error.message) == ("error", "src/a.c", 3, 7, "bad thing")
    assert (warning.level, warning.title) == ("warning", "Old")
    assert told.result.conclusion == "success"


async def test_secrets_and_masks_never_reach_an_event(bed):
    told = await bed.run(
        job(
            "name: Use ${{ secrets.TOKEN }}\n        run: |\n"
            "          echo token ${{ secrets.TOKEN }}\n"
            "          echo ::add-mask::hidden-word\n"
            "          echo a hidden-word\n"
            "          echo ::error::with hidden-word\n"
            "          echo summary hunter2-long >> $GITHUB_STEP_SUMMARY\n"
            "          exit 1"
        ),
        secrets={"TOKEN": "hunter2-long"},
    )
    said = " ".join(repr(event) for event in told.events)
    assert "hunter2-long" not in said
    assert "hidden-word" not in said
    assert told.lines(step=0)[:2] == ["token ***", "a ***"]
    [finished] = [event for event in told.events if isinstance(event, StepFinished)]
    assert finished.summary == "summary ***\n"


async def test_what_is_forgiven_is_told_as_a_failure_that_is_a_success(bed):
    told = await bed.run(
        job(
            "continue-on-error: true\n        run: exit 3\n      - run: echo on\n      - if: failure()\n        run: echo no"
        )
    )
    ended = [event for event in told.events if isinstance(event, StepFinished)]
    outcomes = [(event.outcome, event.conclusion, event.is_forgiven) for event in ended]
    assert outcomes == [
        ("failure", "success", True),
        ("success", "success", False),
        ("skipped", "skipped", False),
    ]
    assert told.result.conclusion == "success"


async def test_a_bad_file_command_fails_the_step_but_not_its_log(bed):
    told = await bed.run(job("run: |\n          echo done\n          echo nonsense >> $GITHUB_OUTPUT"))
    assert told.steps() == ["failure"]
    assert [each.message for each in told.annotations()] == [
        "Unable to process file command 'output' successfully.",
        "Invalid format 'nonsense'",
    ]


async def test_a_refused_command_fails_the_step(bed):
    told = await bed.run(job("run: echo ::set-env name=A::b"))
    assert told.steps() == ["failure"]
    first, second = told.annotations()
    assert first.message == "Unable to process command '::set-env name=A::b' successfully."
    assert "`set-env` command is disabled" in second.message


async def test_working_directory_and_default_shell_with_its_fallback(bed):
    del_bash = job("run: pwd", "working-directory: /tmp\n        run: pwd")
    told = await bed.run(del_bash)
    assert told.lines(step=0) == ["/home/runner/work/hello/hello"]
    assert told.lines(step=1) == ["/tmp"]


async def test_sh_where_there_is_no_bash(bed, monkeypatch):
    from firebrick.guest.double import agent

    monkeypatch.delitem(agent.PROGRAMS, "bash", raising=False)
    lend = bed.lender.lend

    def without_bash(*args, **kwargs):
        context = lend(*args, **kwargs)
        return _Without(context, bed.lender, "bash")

    bed.lender.lend = without_bash
    told = await bed.run(job("run: echo still here"))
    assert told.lines(step=0) == ["still here"]


class _Without:
    """A loan whose guest lacks a program."""

    def __init__(self, context, lender, name):
        self.context, self.lender, self.name = context, lender, name

    async def __aenter__(self):
        loan = await self.context.__aenter__()
        del self.lender.guests[-1].programs[self.name]
        return loan

    async def __aexit__(self, *exception):
        return await self.context.__aexit__(*exception)


async def test_an_unknown_program_as_shell_is_an_error_of_the_step(bed):
    told = await bed.run(job("shell: zsh {0}\n        run: echo"))
    assert told.steps() == ["failure"]
    assert "zsh" in told.annotations()[0].message


async def test_a_step_that_runs_out_of_time(bed):
    told = await bed.run(job("timeout-minutes: 0.001\n        run: wait", "if: always()\n        run: echo after"))
    assert told.steps() == ["failure", "success"]
    assert told.annotations()[0].message == "The action 'Run wait' has timed out after 0.001 minutes."


async def test_a_line_without_end_is_cut_and_bytes_are_made_text(bed):
    told = await bed.run(job("run: printf \\xff\\xfeA\\n", "run: flood 3"))
    assert told.lines(step=0) == ["\ufffd\ufffdA"]
    assert told.lines(step=1) == ["x" * 1000] * 3
    assert not any(CONTINUED in line for line in told.lines())


async def test_a_flood_ends_at_the_limit_and_says_so(bed):
    bed.settings = type(bed.settings)(log_limit_mib=1)
    told = await bed.run(job("run: flood 2000"))
    assert 1000 < len(told.lines(step=0)) < 1100
    assert "has reached its limit of 1 MiB" in told.lines(step=0)[-1]
    assert told.result.conclusion == "success"


async def test_hash_files_is_answered_by_the_guest(bed):
    told = await bed.run(
        job("run: echo hi >> lock", "run: 'echo ${{ hashFiles(''lock'') }} ${{ hashFiles(''nothing'') }}.'")
    )
    digest = hashlib.sha256(hashlib.sha256(b"hi\n").digest()).hexdigest()
    assert told.lines(step=1) == [f"{digest} ."]


@pytest.mark.parametrize("expression", ["${{ fromJSON('x') }}", "${{ format('{1}', 'a') }}"])
async def test_an_expression_that_fails_is_an_error_of_the_step(bed, expression):
    told = await bed.run(job(f'run: "echo {expression}"'))
    assert told.steps() == ["failure"]
    assert told.annotations()[0].level == "error"


async def test_more_masks_than_can_be_fail_the_step_and_end_the_log(bed):
    flood = "%0A".join(f"value-{number}" for number in range(1001))
    told = await bed.run(
        job(
            f"run: |\n          echo before\n          echo ::add-mask::{flood}\n          echo value-7\n          echo ::error::value-8",
            "if: always()\n        name: value-9\n        run: |\n          echo value-10\n          echo summary value-11 >> $GITHUB_STEP_SUMMARY",
        )
    )
    message = "Cannot mask the value: a job can have no more than 1000 values, or 256 KiB of them, masked. Nothing more of this job is shown."
    assert told.lines(step=0) == ["before", f"##[error]{message}"]
    assert told.lines(step=1) == []
    assert [annotation.message for annotation in told.annotations()] == [message]
    assert told.steps() == ["failure", "success"]
    later = [event for event in told.events if isinstance(event, (StepFinished, LogLine, Annotation, StepStarted))]
    assert not any("value-" in repr(event) for event in later)
    assert told.result.conclusion == "failure"


async def test_a_name_that_comes_out_of_an_expression_is_short(bed):
    told = await bed.run(
        job(
            "name: ${{ format('{0}{0}{0}{0}', env.LONG) }}\n        run: echo x",
            "name: ${{ env.LONG }}-${{ secrets.TOKEN }}\n        run: echo x",
            before=f"env: {{LONG: {'x' * 995}}}\n",
        ),
        secrets={"TOKEN": "hunter2-long"},
    )
    names = [event.name for event in told.events if isinstance(event, StepStarted)]
    assert names == ["x" * 1000, "x" * 995 + "-***"]


async def test_summaries_count_as_log(bed):
    bed.settings = type(bed.settings)(log_limit_mib=1)
    told = await bed.run(job(*["run: fill 2 300000 S >> $GITHUB_STEP_SUMMARY"] * 3))
    kept = [len(event.summary) for event in told.events if isinstance(event, StepFinished)]
    assert kept[0] > 500_000
    assert kept[2] == 0
    assert any("has reached its limit of 1 MiB" in line for line in told.lines())


async def test_a_step_with_endless_time_runs(bed):
    told = await bed.run(job("timeout-minutes: 1e308\n        run: echo x"))
    assert told.steps() == ["success"]


async def test_a_shell_the_image_has_not_is_told_with_what_to_do(bed):
    told = await bed.run(job("run: x\n        shell: pwsh"))
    [line] = told.lines(step=0)
    assert line == (
        "##[error]cannot run 'pwsh': the image has no such program. Name another `shell`, or in `runs-on` an image that has it."
    )
    assert told.steps()[0] == "failure"


async def test_a_directory_that_is_not_there_is_not_a_missing_shell(bed):
    told = await bed.run(job("run: x\n        shell: sh\n        working-directory: nowhere"))
    [line] = told.lines(step=0)
    assert line.startswith("##[error]cannot ")
    assert "nowhere" in line


async def test_a_step_is_one_request(bed, monkeypatch):
    asked = []

    class Recorded(Exchange):
        def __init__(self, session, number, request, *, named):
            asked.append(request)
            super().__init__(session, number, request, named=named)

    monkeypatch.setattr("firebrick.guest.double.agent.Exchange", Recorded)
    told = await bed.run(job("run: echo 1", "run: echo 2", "run: echo 3"))
    assert told.steps() == ["success"] * 3
    steps = [number for number, request in enumerate(asked) if isinstance(request, message.Exec)]
    assert steps == list(range(steps[0], steps[0] + 3))
    first, second, third = (asked[number] for number in steps)
    assert [type(change) for change in first.before] == [message.Put] * 6
    assert [type(change) for change in third.before] == [message.Move, message.Put]
    assert (second.before[0].source, second.before[0].target) == (first.listing, second.listing)
    assert len({first.listing, second.listing, third.listing}) == 3


async def test_spare_files_that_are_gone_are_made_anew(bed, monkeypatch):
    """As when a program takes them away between two steps: what the first has removed counts as spare."""
    monkeypatch.setattr(StepFiles, "untouched", property(lambda _: True, lambda _, value: None), raising=False)
    told = await bed.run(
        job(
            "run: remove /home/runner/work/_temp/_runner_file_commands",
            "id: a\n        run: echo b=c >> $GITHUB_OUTPUT",
            "run: echo ${{ steps.a.outputs.b }}",
        )
    )
    assert told.steps() == ["success"] * 3
    assert told.lines(step=2) == ["c"]


async def test_with_an_agent_of_an_earlier_release_a_step_is_what_it_was(bed, monkeypatch):
    made = GuestDouble.__init__

    def earlier(self, **options):
        made(self, **options)
        self.features = ("listen",)

    monkeypatch.setattr(GuestDouble, "__init__", earlier)
    steps = ("run: 'true'", "id: a\n        run: echo b=c >> $GITHUB_OUTPUT", "run: echo ${{ steps.a.outputs.b }}")
    told = await bed.run(job(*steps))
    assert told.steps() == ["success"] * 3
    assert told.lines(step=2) == ["c"]


async def test_a_script_that_no_message_holds_runs(bed):
    told = await bed.run(
        job("run: |\n" + f"          # {'x' * 100}\n" * 1000 + "          echo large", "run: echo next")
    )
    assert told.steps() == ["success"] * 2
    assert told.lines(step=0)[-1] == "large"


async def test_files_that_cannot_be_made_fail_their_step(bed):
    place = "/home/runner/work/_temp/_runner_file_commands"
    blocked = f"run: |\n          remove {place}\n          echo in the way >> {place}"
    told = await bed.run(job(blocked, "run: echo never", "if: failure()\n        run: echo neither"))
    assert told.steps() == ["success", "failure", "failure"]
    [line] = told.lines(step=1)
    assert line.startswith("##[error]")
    assert "never" not in line
