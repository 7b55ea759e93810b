"""A failed step keeps its machine: what is kept, what its record says and does not say, and when it goes."""

import msgspec
import pytest

from firebrick.machine import SnapshotError
from firebrick.node.errors import NodeError
from firebrick.node.event import MachineKept
from firebrick.node.kept import checkpoint
from firebrick.node.kept.shelf import Kind
from firebrick.node.settings import Keep

SECRET = "hunter2-and-more"
FAILING = """
on: push
env: {WORD: brick}
jobs:
  build:
    runs-on: base
    steps:
      - run: echo kiln >> clay
      - name: it breaks
        env: {TOKEN: '${{ secrets.TOKEN }}'}
        run: |
          echo ADDED=later >> $GITHUB_ENV
          exit 3
      - if: always()
        run: echo after >> clay
"""


def changed(forks, **fields):
    forks.settings = msgspec.structs.replace(forks.settings, **fields)


def kept(told):
    return [event for event in told.events if isinstance(event, MachineKept)]


async def test_the_machine_of_a_failing_step_is_kept_and_the_job_goes_on(forks):
    told = await forks.run(FAILING, secrets={"TOKEN": SECRET})
    assert told.steps() == ["success", "failure", "success"]
    assert told.jobs() == {"build": "failure"}
    [event] = kept(told)
    assert (event.step, event.kind, event.label) == (1, "failed", "2")
    [entry] = forks.pool().kept.entries()
    record = entry.record
    assert entry.path == forks.home.kept / "run-1" / "build" / "2"
    assert (record.run, record.job, record.step, record.name, record.exit_code) == ("run-1", "build", 1, "it breaks", 3)
    assert record.argv[0] == "bash"
    assert record.script.endswith("exit 3\n")
    assert record.directory == "/home/runner/work/hello/hello"
    assert record.environment["WORD"] == "brick"
    assert record.bytes == event.bytes > 0
    assert record.image == "base"
    assert record.expires - record.at == pytest.approx(3600)
    assert any("firebrick debug run-1 build" in line for line in told.lines(step=1))


async def test_no_secret_is_in_a_record(forks):
    await forks.run(FAILING, secrets={"TOKEN": SECRET})
    [entry] = forks.pool().kept.entries()
    raw = (entry.path / "record.json").read_text()
    assert SECRET not in raw
    assert entry.record.environment["TOKEN"] == "***"
    assert entry.record.secrets == ("TOKEN",)


async def test_a_fork_has_the_workspace_and_the_environment_as_they_were_and_there_may_be_several(forks):
    await forks.run(FAILING, secrets={"TOKEN": SECRET})
    pool = forks.pool()
    [entry] = pool.kept.entries()
    async with pool.reopen(entry, purpose="a") as one, pool.reopen(entry, purpose="b") as other:
        assert one.machine != other.machine
        assert len(pool.roster.list()) == 2
        for loan in (one, other):
            state = await checkpoint.collect(loan.guest, entry.record.state)
            assert state.environment["TOKEN"] == SECRET
            assert await loan.guest.files.read(f"{state.directory}/clay") == b"kiln\n"
            script = (await loan.guest.files.read(checkpoint.STEP)).decode()
            assert script.startswith("#!/bin/sh\ncd /home/runner/work/hello/hello || exit\nexec bash -e ")
            await loan.guest.files.write("/tmp/mine", loan.machine.encode(), parents=True)
        assert await one.guest.files.read("/tmp/mine") == one.machine.encode()


async def test_the_job_sees_nothing_of_what_is_left_in_the_guest(forks):
    told = await forks.run(
        FAILING + "      - if: always()\n        run: echo ${{ hashFiles('../../_temp/_firebrick/*') }}.\n"
    )
    assert told.lines(step=3) == ["."]
    for machine in forks.driver.machines:
        with pytest.raises(Exception, match="no such file|No such file"):
            machine.guest.disk.find(checkpoint.DIRECTORY.encode())


async def test_a_state_that_was_changed_inside_is_refused(forks):
    await forks.run(FAILING)
    pool = forks.pool()
    [entry] = pool.kept.entries()
    async with pool.reopen(entry, purpose="a") as loan:
        await loan.guest.files.write(checkpoint.STATE, b"\x80")
        with pytest.raises(NodeError, match="changed from inside"):
            await checkpoint.collect(loan.guest, entry.record.state)


@pytest.mark.parametrize(
    ("policy", "step", "labels"),
    [
        (Keep.NEVER, "exit 1", []),
        (Keep.ON_FAILURE, "echo fine", []),
        (Keep.ALWAYS, "echo fine", ["end"]),
        (Keep.ALWAYS, "exit 1", ["1"]),
    ],
)
async def test_policy(forks, policy, step, labels):
    changed(forks, keep=policy)
    told = await forks.run(f"on: push\njobs: {{build: {{runs-on: base, steps: [{{run: {step}}}]}}}}\n")
    assert [event.label for event in kept(told)] == labels
    assert [entry.record.label for entry in forks.pool().kept.entries()] == labels


async def test_a_failure_that_is_allowed_keeps_nothing(forks):
    await forks.run("on: push\njobs: {build: {runs-on: base, steps: [{run: exit 1, continue-on-error: true}]}}\n")
    assert forks.pool().kept.entries() == []


async def test_a_machine_that_cannot_be_saved_costs_the_job_nothing(forks):
    await forks.run("on: push\njobs: {build: {runs-on: base, steps: [{run: echo}]}}\n")  # there is a template now
    forks.driver.faults.save = SnapshotError("cannot save: the disk is full")
    told = await forks.run(FAILING)
    assert told.steps() == ["success", "failure", "success"]
    assert "The machine could not be kept: cannot save: the disk is full" in told.lines(step=1)
    assert forks.pool().kept.entries() == []
    await forks.pool().kept.sweep()
    assert [path for path in forks.home.kept.iterdir() if path.name != ".lock"] == []


async def test_of_too_many_the_oldest_go(forks):
    changed(forks, keep_count=2)
    for number in range(3):
        await forks.run(FAILING, id=f"run-{number}")
    shelf = forks.pool().kept
    assert [entry.record.run for entry in shelf.entries()] == ["run-1", "run-2"]
    assert not (forks.home.kept / "run-0").exists()


async def test_what_is_over_its_time_goes_when_a_node_opens(forks):
    changed(forks, keep_minutes=1e-6)
    await forks.run(FAILING)
    pool = forks.pool()
    assert pool.kept.entries() == []
    assert (forks.home.kept / "run-1").exists()
    await pool.kept.sweep()
    assert not (forks.home.kept / "run-1").exists()


async def test_what_a_killed_process_left_goes(forks):
    await forks.run(FAILING)
    folder = forks.home.kept / "run-1" / "build"
    draft = folder / ".entry.999999999-1.0123abcd"
    (draft / "snapshot").mkdir(parents=True)
    (folder / "7").mkdir()
    (folder / "8").mkdir()
    (folder / "8" / "record.json").write_text("{")
    await forks.pool().kept.sweep()
    assert [path.name for path in folder.iterdir()] == ["2"]


async def test_which_one_is_meant(forks):
    both = """
    on: push
    jobs:
      a: {runs-on: base, steps: [{run: echo}, {run: exit 1}, {if: always(), run: exit 2}]}
      b: {runs-on: base, steps: [{run: exit 1}]}
    """
    await forks.run(both, id="20260101-aa")
    await forks.run(FAILING, id="20260102-bb")
    shelf = forks.pool().kept
    assert shelf.find("last").record.run == "20260102-bb"
    assert shelf.find("20260102").record.job == "build"
    assert shelf.find("20260101", "a").record.label == "2"
    with pytest.raises(NodeError) as several:
        shelf.find("20260101")
    assert several.value.hint == "Name one behind the run."
    assert shelf.find("20260101", "a", "3").record.exit_code == 2
    for asked, said in [
        (("20260101",), "several jobs"),
        (("2026",), "several runs begin"),
        (("nothing",), "no machine of a run"),
        (("last", "a"), "no machine of job a"),
        (("last", None, "9"), "no machine at step 9"),
        (("last", None, "before-9"), "no machine before step 9"),
    ]:
        with pytest.raises(NodeError, match=said):
            shelf.find(*asked)
    with pytest.raises(NodeError, match="no checkpoint of any run is kept"):
        shelf.find("last", kind=Kind.BEFORE)


async def test_removing(forks):
    await forks.run(FAILING)
    shelf = forks.pool().kept
    await shelf.remove(shelf.entries())
    assert shelf.entries() == []
    assert not (forks.home.kept / "run-1").exists()


async def test_a_run_whose_name_is_no_directory_keeps_nothing_and_says_so(forks):
    told = await forks.run(FAILING, id="../../etc")
    assert any("no name for a directory" in line for line in told.lines(step=1))
    assert told.steps() == ["success", "failure", "success"]


async def test_a_disk_that_is_nearly_full_is_left_alone(forks, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500 << 20))
    told = await forks.run(FAILING)
    assert any("there are only 500 MiB free" in line for line in told.lines(step=1))
    assert forks.pool().kept.entries() == []


async def test_one_that_is_larger_than_all_that_may_be_kept(forks, monkeypatch):
    from firebrick.machine import Snapshot

    changed(forks, keep_mib=1)
    monkeypatch.setattr(Snapshot, "size", property(lambda _: 2 << 20))
    told = await forks.run(FAILING)
    assert any("more than the 1 MiB of `keep_mib`" in line for line in told.lines(step=1))
    assert kept(told) == []
    assert forks.pool().kept.entries() == []


MARKING = """
on: push
jobs:
  evil:
    runs-on: base
    env: {FIREBRICK_CHECKPOINT: true}
    steps: [{run: echo 1}, {run: echo 2}, {run: echo 3}, {run: exit 1}]
"""


async def test_checkpoints_a_job_marks_push_out_nothing_of_another_run(forks):
    changed(forks, keep_count=3)
    await forks.run(FAILING, id="mine")
    await forks.run(MARKING, id="evil")
    labels = {(entry.record.run, entry.record.label) for entry in forks.pool().kept.entries()}
    assert labels == {("mine", "2"), ("evil", "before-4"), ("evil", "4")}
    assert {entry.record.tenant for entry in forks.pool().kept.entries()} == {f"directory {forks.directory / 'source'}"}
