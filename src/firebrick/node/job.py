"""One job on one machine, read top-down: image, machine, workspace, steps, what is kept, and everything released before it is reported."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from firebrick.guest.errors import AgentError, ChannelError, GuestError, OutputTooLargeError, TreeError
from firebrick.image.errors import ImageError
from firebrick.machine.errors import BootError, MachineError
from firebrick.node.action.book import JobActions
from firebrick.node.action.use import Entry, NativeUse, Phase, entries_of, has_phase, images_at_once
from firebrick.node.cancel import job_limit, run_limit
from firebrick.node.context import TEMP, TOOL_CACHE, fixed_environment
from firebrick.node.contract import JobResult
from firebrick.node.errors import NodeError, StepError, told
from firebrick.node.event import CancelCause, Conclusion, JobStarted
from firebrick.node.glob import find_files, parse_searches
from firebrick.node.guest import Loan
from firebrick.node.kept.resume import Resume
from firebrick.node.outfit import JobTask, Outfit, offered
from firebrick.node.run.fork import Branch
from firebrick.node.source import open_source
from firebrick.node.step.background import MOST_AT_ONCE, open_background
from firebrick.node.step.bench import Bench
from firebrick.node.step.hook import Hook, run_hook
from firebrick.node.step.phase import posts_of
from firebrick.node.step.step import run_step, title
from firebrick.node.surroundings import find_surroundings
from firebrick.node.tool.cache import JobTools, speaks_of_tools
from firebrick.node.tool.name import StoredTool
from firebrick.node.tool.scope import scope_of
from firebrick.process import ProcessError
from firebrick.results.errors import ResultsError
from firebrick.task import end_tasks, together
from firebrick.workflow.expression.expression import EvaluationError
from firebrick.workflow.outcome import CANCELLED, job_outputs, timeout_s

_CONSOLE_LINES: Final = 20
# What ends a job before its time without being a mistake of ours: each is a sentence, and becomes the message of the job.
_LOSSES: Final = (MachineError, GuestError, ImageError, NodeError, ResultsError, EvaluationError, ProcessError, OSError)


async def run_job(task: JobTask) -> JobResult:
    """Carry the job out. When this returns its machine is gone and all it held is released.

    Never raises for what goes wrong in or around the job. If cancelled, it releases everything and raises CancelledError."""
    body = asyncio.create_task(_carry_out(task), name=f"job-{task.planned.key}")
    watch = asyncio.create_task(_give_up(task, body), name=f"job-{task.planned.key}-watch")
    try:
        await asyncio.wait([body])
        return _result(task, body)
    finally:
        await end_tasks(watch, body)


async def _give_up(task: JobTask, body: asyncio.Task[JobResult]) -> None:
    """Cancelled while it waits for a machine, a job ends at once; on its machine, when the time for its last steps is over."""
    await task.cancellation.requested.wait()
    if task.log.started:
        await task.cancellation.expired.wait()
    body.cancel()


def _result(task: JobTask, body: asyncio.Task[JobResult]) -> JobResult:
    if body.cancelled():
        return JobResult(conclusion=_cancelled(task), message=task.cancellation.message)
    try:
        return body.result()
    except _LOSSES as error:
        text = told(error)
        task.log.node(text)
        if isinstance(error, BootError):
            task.log.node("\n".join(error.console.splitlines()[-_CONSOLE_LINES:]))
    except Exception as error:  # noqa: BLE001 - one job's accident must not take the node's other jobs with it
        text = f"Firebrick has a mistake of its own: {type(error).__name__}: {error}"
        task.log.node("".join(traceback.format_exception(error)))
    return JobResult(conclusion=Conclusion.FAILURE, message=task.log.mask(text))


def _cancelled(task: JobTask) -> Conclusion:
    return Conclusion.FAILURE if task.cancellation.cause is CancelCause.TIMEOUT else Conclusion.CANCELLED


async def _carry_out(task: JobTask) -> JobResult:
    with ExitStack() as held:
        if task.trunk is None:
            resume = Resume.of(task.order.rerun.entry) if task.order.rerun is not None else None
            return await _on_machine(task, Branch(resume=resume), held)
        async with task.trunk.joined() as branch:
            return await _on_machine(task, branch, held)


async def _on_machine(task: JobTask, branch: Branch, held: ExitStack) -> JobResult:
    """`held` is what stays on the host for as long as the job may need it."""
    around = await find_surroundings(task.order, task.planned, task.scope, task.borrower, task.settings)
    actions = JobActions(task.actions, task.settings, task.log, held)
    await actions.prepare(task.planned.job.steps)
    entries = entries_of(task.planned.job.steps)
    actions.open_known(entries, depth=0)
    node = await actions.find_node(entries, task.order.source.path)
    tools = _tools(task, branch)
    given = await _given(task, tools, searching=node is not None or speaks_of_tools(entries))
    limit = task.settings.source_limit_mib << 20
    companions = len(around.services) + images_at_once(entries, MOST_AT_ONCE)
    async with (
        _lent(task, around.image, branch.resume, node, given, companions) as loan,
        open_source(task.order.source, loan.scratch / "source", limit=limit) as source,
        around.around(loan, task.borrower) as served,
    ):
        _report_start(task, loan, around.title, entries, branch.resume)
        branch.listen(task.log, before=len(_known_phases(entries)) - len(entries))
        outfit = Outfit(task=task, loan=loan, source=source, actions=actions, around=around, served=served)
        bench = outfit.bench(entries)
        return await _work(task, bench, branch, loan, tools)


def _lent(
    task: JobTask,
    image: str,
    resume: Resume | None,
    node: Path | None,
    tools: Sequence[StoredTool],
    companions: int,
) -> AbstractAsyncContextManager[Loan]:
    job, say = task.borrower, task.log.node
    if resume is not None:
        return task.lender.revive(resume.snapshot, resume.image, purpose=job.purpose, say=say, companions=companions)
    return task.lender.lend(
        image,
        task.order.resources,
        purpose=job.purpose,
        say=say,
        node=node,
        tools=tools,
        companions=companions,
        tenant=job.tenant,
    )


def _tools(task: JobTask, branch: Branch) -> JobTools | None:
    """None also where a job goes on from a snapshot: it has the tools that are in there, and nobody knows which of them are new."""
    if task.tools is None or branch.resume is not None:
        return None
    return JobTools(task.tools, scope_of(task.order, task.planned.job.id), task.log)


async def _given(task: JobTask, tools: JobTools | None, *, searching: bool) -> Sequence[StoredTool]:
    if tools is None:
        return ()
    return await tools.choose(searching=searching, scratch_mib=task.order.resources.scratch_mib)


def _report_start(task: JobTask, loan: Loan, image: str, entries: Sequence[Entry], resume: Resume | None) -> None:
    steps = tuple(task.log.mask(title(entry, phase)) for entry, phase in _known_phases(entries))
    task.log.start(
        JobStarted(
            at=time.time(),
            job=task.planned.key,
            name=task.planned.name,
            machine=loan.machine,
            image=image,
            start=loan.start,
            start_ms=loan.start_ms,
            steps=steps,
            resumed=resume.words if resume is not None else "",
        )
    )


def _known_phases(entries: Sequence[Entry]) -> list[tuple[Entry, Phase]]:
    """All that will run, in its order, but what comes after the last step: that is known when it has."""
    before = [(entry, Phase.PRE) for entry in entries if has_phase(entry.use, Phase.PRE)]
    return [*before, *((entry, Phase.MAIN) for entry in entries)]


async def _work(task: JobTask, bench: Bench, branch: Branch, loan: Loan, tools: JobTools | None) -> JobResult:
    job = task.planned.job
    timer = _limited(task)
    try:
        if branch.resume is None:
            await _set_up(bench)
        if tools is not None:
            await tools.look(bench.guest)
        bench.env.update(await bench.evaluate(task.order.workflow.env.texts))
        bench.env.update(await bench.evaluate(job.env.texts))
        bench.env = {**fixed_environment(task.order), **bench.env}
        bench.variables.given = dict(bench.env)
        asks = any(_may_ask(entry) for entry in bench.entries)
        async with offered(task, bench.guest, needed=asks) as bench.runtime:
            if branch.resume is None:  # else it has run in this machine
                await run_hook(bench, Hook.STARTED)
            await _run_steps(bench, branch, loan)
            await run_hook(bench, Hook.COMPLETED)
        result = await _finish(task, bench)
        if tools is not None and result.conclusion is Conclusion.SUCCESS:
            await tools.keep(bench)
        return result
    finally:
        timer.cancel()


def _limited(task: JobTask) -> asyncio.TimerHandle:
    """The time of the job begins. Raises EvaluationError."""
    whole, minutes = task.order.resources.timeout_s, task.planned.job.timeout_minutes
    limit = timeout_s(minutes, task.scope, whole)
    message = run_limit(whole) if minutes is None else job_limit(task.planned.job.id, limit)
    end = partial(task.cancellation.request, CancelCause.TIMEOUT, message=message)
    return asyncio.get_running_loop().call_later(limit, end)


def _may_ask(entry: Entry) -> bool:
    return entry.step.uses is not None and not isinstance(entry.use, NativeUse)


async def _run_steps(bench: Bench, branch: Branch, loan: Loan) -> None:
    """What comes before the first step, the steps, and what comes after the last one. What has run before a snapshot was taken is left out."""
    first = await branch.begin(bench)
    known = _known_phases(bench.entries)
    async with open_background(bench) as background:
        for number, (entry, phase) in enumerate(known):
            if number < first:
                continue
            await branch.arrive(bench, loan, number)
            if entry.step.background and phase is Phase.MAIN:
                await background.begin(number, entry)
            else:
                await run_step(bench, number, entry, phase)
        await background.finish()
    posts = posts_of(bench)
    for number, entry in enumerate(posts, len(known)):
        await run_step(bench, number, entry, Phase.POST)
    await bench.keeper.ended(bench, len(known) + len(posts) - 1)


async def _set_up(bench: Bench) -> None:
    """The directories of a job and the event; the machine is fresh, so nothing is in the way."""
    files = bench.guest.files
    event = json.dumps(dict(bench.order.source.event)).encode()
    made = (
        files.mkdir(bench.paths.workspace, parents=True),
        files.mkdir(TOOL_CACHE, parents=True),
        files.mkdir(f"{TEMP}/_runner_file_commands", parents=True),
        files.write(bench.paths.event, event, parents=True),
    )
    await together(*made)


async def _finish(task: JobTask, bench: Bench) -> JobResult:
    outputs = await _outputs(task, bench)
    if bench.conclusion == "success" and task.order.collect:
        await _collect(task, bench, task.order.collect)
    conclusion = Conclusion(bench.conclusion)
    message = task.cancellation.message if bench.status == CANCELLED else ""
    return JobResult(conclusion=conclusion, outputs=outputs, message=message)


async def _outputs(task: JobTask, bench: Bench) -> dict[str, str]:
    try:
        outputs, warnings = await bench.evaluate(lambda scope: job_outputs(task.planned.job, scope, task.log.masker))
    except EvaluationError as error:
        task.log.node(f"The outputs of the job cannot be evaluated: {error}")
        bench.failed = True
        return {}
    for warning in warnings:
        task.log.node(warning)
    return outputs


async def _collect(task: JobTask, bench: Bench, patterns: Sequence[str]) -> None:
    """What the order asks to bring out of the workspace; nothing is no error, more than the limit is one."""
    try:
        workspace = bench.paths.workspace
        found = await find_files(bench.guest.files, parse_searches(patterns, workspace))
        inside = [file for file in found if file.path.startswith(f"{workspace}/")]
        if inside:
            await task.shelf.collect(task.planned.key, bench.guest.files, inside, root=workspace)
    except ChannelError:
        raise
    except (StepError, AgentError, TreeError, OutputTooLargeError) as error:
        task.log.node(f"cannot collect the files of the job: {error}")
        bench.failed = True
