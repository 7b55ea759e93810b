"""What a step may leave in the node's memory, and what it may not."""

import pytest

from firebrick.node.errors import StepError
from firebrick.node.settings import NodeSettings
from firebrick.node.step.outputs import StepOutputs
from firebrick.workflow.command.file import extend_path


def job(*lines: str) -> str:
    said = "".join(f"          {line}\n" for line in lines)
    after = "      - if: always()\n        run: echo after\n"
    return f"on: push\njobs:\n  build:\n    runs-on: base\n    steps:\n      - run: |\n{said}{after}"


def test_names_and_values_together_have_a_limit():
    outputs = StepOutputs(most_bytes=10)
    outputs.set("a", "123456789")
    with pytest.raises(StepError, match="The outputs of this step are more than 0 KiB"):
        outputs.set("b", "")
    assert dict(outputs) == {"a": "123456789"}


def test_a_value_that_is_replaced_counts_no_more():
    outputs = StepOutputs(most_bytes=10)
    for _ in range(5):
        outputs.set("a", "é" * 4)
    assert dict(outputs) == {"a": "éééé"}


def test_there_are_not_more_than_so_many_names():
    outputs = StepOutputs(most_names=2)
    outputs.set("a", "")
    outputs.set("b", "")
    outputs.set("a", "again")
    with pytest.raises(StepError, match="more than 2 outputs"):
        outputs.set("c", "")


async def test_a_step_that_tells_too_many_outputs_fails_and_the_next_ones_run(bed):
    told = await bed.run(job("outputs 40 60000"))
    assert told.steps() == ["failure", "success"]
    assert any("The outputs of this step are more than 1024 KiB" in each.message for each in told.annotations())
    assert len(told.annotations()) == 10


async def test_outputs_in_the_file_have_the_same_limit(bed):
    told = await bed.run(job("outputs 17 60000", "echo late=value >> $GITHUB_OUTPUT"))
    assert told.steps() == ["success", "success"]
    told = await bed.run(job("outputs 17 60000", f"echo late={'x' * 40_000} >> $GITHUB_OUTPUT"))
    assert told.steps() == ["failure", "success"]
    assert "Unable to process file command 'output'" in told.annotations()[0].message


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("ENV", "fill 20 60000 V", "The environment of the job has more than 1024 KiB."),
        ("PATH", "fill 3 30000 /d", "What was added to PATH has more than 64 KiB."),
    ],
)
async def test_environment_and_path_have_limits(bed, name, line, told):
    run = await bed.run(job(f"{line} >> $GITHUB_{name}"))
    assert run.steps() == ["failure", "success"]
    assert told in run.annotations()[1].message


async def test_commands_take_of_the_limit_of_the_log(bed):
    bed.settings = NodeSettings(log_limit_mib=1)
    told = await bed.run(job("again 40 60000"))
    assert told.steps() == ["success", "success"]
    assert told.lines() == [
        "The log of this job has reached its limit of 1 MiB: no more of it is kept, the job goes on."
    ]


async def test_refused_commands_are_not_told_without_end(bed):
    told = await bed.run(job(*["echo ::set-env name=A::b"] * 30, *["echo ::add-mask::"] * 30))
    assert told.steps() == ["failure", "success"]
    assert len(told.annotations()) == 20


def test_many_directories_are_added_in_no_time():
    many = tuple(str(number) for number in range(200_000))
    assert extend_path(many, ("7", "new"))[-2:] == ("7", "new")
    assert len(extend_path(many, many)) == 200_000
