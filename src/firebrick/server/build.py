"""The life of one attempt at one build, read from top to bottom.

    clone      the repository's tree onto this host               cloning_repo
    plan       the workflow that is to run on it; others that its event starts are builds of their own
    run        the workflow on the node                           starting_vm, then running_build with the first machine
    collect    hash what the jobs left, write the manifest        collecting_artifacts
    park       where jobs wait for their environments, what there is by then is put aside
    clear      the clone goes, whatever happened

What comes out is an `Outcome`; nothing is raised but cancellation and `SupersededError`. The queue records the outcome, last of all: a build that is
reported as ended holds nothing any more.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from firebrick.forge.address import Address, parse_address
from firebrick.forge.clone import Checkout, clone
from firebrick.forge.errors import ForgeError
from firebrick.node.contract import LiveRun, RunHost, RunResult
from firebrick.node.event import (
    Annotation,
    ArtifactStored,
    CancelCause,
    Conclusion,
    Event,
    JobStarted,
    LogLine,
    StepFinished,
    StepStarted,
)
from firebrick.node.order import RunOrder
from firebrick.server.artifact import Manifest, gather, write_manifest
from firebrick.server.clock import Clock, SystemClock
from firebrick.server.errors import PlanError
from firebrick.server.intake import Papers, keep
from firebrick.server.log import BuildLog
from firebrick.server.occasion import comparison, decode_payload, find_event
from firebrick.server.order import Terms, find_rerun, make_order
from firebrick.server.place import Place
from firebrick.server.plan import Plan
from firebrick.server.record import Build, BuildRequest, Outcome, State, Verdict, derived_id
from firebrick.server.settings import ServeSettings
from firebrick.server.stop import Stop, StoppedError
from firebrick.server.store import Store
from firebrick.task import shielded
from firebrick.workflow.event.event import Event as WorkflowEvent
from firebrick.workflow.outcome import JobOutcome
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.syntax import Workflow

_OVERTIME_S: Final = 600.0
_BREATH_EVENTS: Final = 128
_LONGEST_MESSAGE: Final = 8192
CANCELLED: Final = Outcome(Conclusion.CANCELLED, "cancelled")
_log = structlog.get_logger("firebrick.server")


class SupersededError(Exception):
    """The build is not in this attempt's hands any more."""


class Planner(Protocol):
    """Says what is to run on a tree. Raises PlanError and WorkflowError."""

    def __call__(self, tree: Path, request: BuildRequest, event: WorkflowEvent | None = None) -> Plan: ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What every attempt works with. `publish` tells followers of a build's new state; `news` is set where there is more to do for the queue,
    `gates` where a build has come to wait. `adding` is held from the question whether the queue is full until a build is in it: of many who ask
    at once, all would be told that it is not."""

    store: Store
    node: RunHost
    plan: Planner
    settings: ServeSettings
    publish: Callable[[Build], None]
    clock: Clock = field(default_factory=SystemClock)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    gates: asyncio.Event = field(default_factory=asyncio.Event)
    adding: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def is_full(self) -> bool:
        """Whether as many builds wait as may: whoever asked for them, no other is added."""
        return await self.store.count(State.QUEUED) >= self.settings.max_queued


class Breath:
    """Lets others run now and then, where events come faster than anybody waits for them."""

    def __init__(self) -> None:
        self._count = 0

    async def take(self) -> None:
        self._count += 1
        if self._count % _BREATH_EVENTS == 0:
            await asyncio.sleep(0)


class Attempt:
    """One attempt. `build` is as the store had it when the attempt was claimed."""

    def __init__(self, build: Build, place: Place, deps: Dependencies, log: BuildLog, stop: Stop) -> None:
        self._build = build
        self._place = place
        self._deps = deps
        self._log = log
        self._stop = stop
        self._owners: dict[str, tuple[str, str]] = {}
        self._steps: dict[tuple[str, int], str] = {}
        self._failed_step = ""

    async def carry_out(self) -> Outcome:
        """All of it. Whatever goes wrong in it is in the outcome."""
        try:
            return await self._all()
        except StoppedError as stopped:
            return self._stopped(stopped.cause)
        except (ForgeError, PlanError, WorkflowError) as error:
            return Outcome(Conclusion.FAILURE, str(error)[:_LONGEST_MESSAGE], error.hint)
        except TimeoutError:
            message = "the node did not end the run when its time was over"
            return Outcome(Conclusion.FAILURE, message, "The server's log may say why.")
        except SupersededError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, this build ends, and the others go on
            _log.exception("build failed in the server", build=self._build.id)
            message = f"internal error: {type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
            return Outcome(Conclusion.FAILURE, message, "The server's log has the details.")
        finally:
            await shielded(asyncio.to_thread(self._place.clear_source))

    async def _all(self) -> Outcome:
        await asyncio.to_thread(self._place.clear_attempt)
        payload = decode_payload(await asyncio.to_thread(self._place.payload))
        checkout = await self._stop.bound(self._clone(payload))
        event = find_event(self._build.request, payload, checkout, self._address())
        plan = await asyncio.to_thread(self._deps.plan, checkout.path, self._build.request, event)
        await self._settle(plan, checkout)
        if plan.workflow is None:
            return Outcome(Conclusion.SKIPPED, plan.reason)
        order = await self._order(plan.workflow, plan, checkout)
        await self._advance(State.STARTING)
        result = await self._stop.bound(self._run(order), CancelCause.SHUTDOWN)
        await asyncio.to_thread(self._place.keep_jobs, _outcomes(result))
        await self._advance(State.COLLECTING)
        count = await self._collect(checkout)
        if result.conclusion is Conclusion.WAITING:
            return await self._park(result, count)
        return self._outcome(result, count)

    async def _clone(self, payload: Mapping[str, Any] | None) -> Checkout:
        """What was asked for; in a later attempt what that was in the first: somebody may have approved that commit, and no other."""
        build, request = self._build, self._build.request
        branch, commit = request.branch, request.commit
        if build.sha:
            branch, commit = build.ref if build.ref.startswith("refs/") else "", build.sha
        address = self._address()
        what = " ".join(filter(None, (branch, commit))) or "the default branch"
        self._log.say(f"==> Cloning {address.url} ({what})")
        return await clone(
            address,
            self._place.source,
            branch=branch,
            commit=commit,
            compare=comparison(request, payload),
            limits=self._deps.settings.clone_limits,
        )

    async def _settle(self, plan: Plan, checkout: Checkout) -> None:
        """Keep what was cloned, say what the event starts and what it does not, and have the others it starts built as well."""
        verdicts = []
        for planned in plan.verdicts:
            verdict = await self._started(planned, plan, checkout) if planned.starts else planned
            verdicts.append(verdict)
            said = "starts" if verdict.starts else "does not start"
            self._log.say(f"==> {self._build.request.event} {said} {verdict.path}: {verdict.reason}")
        build = await self._deps.store.note(self._build, sha=checkout.sha, ref=checkout.ref, verdicts=verdicts)
        self._become(build)

    async def _started(self, verdict: Verdict, plan: Plan, checkout: Checkout) -> Verdict:
        """The verdict with the build that runs the workflow; one that does not start it where too many wait, as a request of its own would be refused."""
        if plan.workflow is not None and plan.workflow.path == verdict.path:
            return dataclasses.replace(verdict, build=self._build.id)
        build_id = await self._have_built(verdict.path, checkout)
        if build_id:
            return dataclasses.replace(verdict, build=build_id)
        most = self._deps.settings.max_queued
        _log.warning("a workflow is passed over, because too many builds wait", build=self._build.id, path=verdict.path)
        reason = f"It would, but {most} builds are waiting already. Ask for this workflow again later."
        return dataclasses.replace(verdict, starts=False, reason=reason)

    async def _have_built(self, path: str, checkout: Checkout) -> str:
        """A build of its own for another workflow; the same one, should this attempt be repeated. Empty where too many wait."""
        build_id = derived_id("event", self._build.id, path)
        if await self._deps.store.find(build_id) is not None:
            return build_id
        branch = checkout.ref if checkout.ref.startswith("refs/") else ""
        request = dataclasses.replace(self._build.request, workflow=path, branch=branch, commit=checkout.sha)
        place = self._place.beside(build_id)
        papers = Papers(self._place.credential(), self._place.payload())
        async with self._deps.adding:
            if await self._deps.is_full():
                return ""
            await asyncio.to_thread(place.remove)
            await keep(place, papers, lambda: self._deps.store.add(build_id, request))
        self._deps.news.set()
        return build_id

    def _address(self) -> Address:
        settings = self._deps.settings
        address = parse_address(self._build.request.repo_url, protocols=settings.protocols)
        credential = self._place.credential() or settings.credential_for(address)
        return dataclasses.replace(address, credential=credential)

    async def _order(self, workflow: Workflow, plan: Plan, checkout: Checkout) -> RunOrder:
        self._log.say(f"==> Running {workflow.name} on {checkout.sha[:12]}")
        address, repeat = self._address(), self._build.request.repeat
        rerun = None
        if repeat is not None and repeat.step:
            rerun = find_rerun(self._deps.node, await self._deps.store.find(repeat.build), repeat)
        terms = Terms(
            address=address,
            said=self._deps.settings.repository_for(address.place),
            gates=await self._deps.store.gates.of(self._build.id),
            now=self._deps.clock.now(),
            rerun=rerun,
        )
        return await asyncio.to_thread(make_order, self._build, workflow, plan, checkout, self._place, terms)

    async def _run(self, order: RunOrder) -> RunResult:
        """Have the node run it, and pass on what it tells. A user's cancel lets the run wind up; a shutdown does not come here: it leaves."""
        breath = Breath()
        # Its time begins when it has its place in its concurrency group, for which it waits as long as it may take.
        turns = 1 if order.workflow.concurrency is None else 2
        limit = order.resources.timeout_s * turns + _OVERTIME_S
        async with asyncio.timeout(limit), self._deps.node.start_run(order) as run:
            cancel = asyncio.create_task(self._pass_on_cancel(run), name=f"cancel-{order.id}")
            try:
                async for event in run.events():
                    await self._note(event)
                    await breath.take()
                return await run.result()
            finally:
                cancel.cancel()

    async def _pass_on_cancel(self, run: LiveRun) -> None:
        run.cancel(await self._stop.asked())

    async def _note(self, event: Event) -> None:
        match event:
            case LogLine():
                self._log.add(at=event.at, job=event.job, step=event.step, stream=event.stream, text=event.text)
            case JobStarted():
                what = f"==> Job {event.name}: {event.image}, {event.start} in {event.start_ms:.0f} ms"
                self._log.say(what, at=event.at, job=event.job)
                self._steps |= {(event.job, index): name for index, name in enumerate(event.steps)}
                if self._build.state is State.STARTING:
                    await self._advance(State.RUNNING)
            case StepStarted():
                self._steps[event.job, event.step] = event.name
                self._log.say(f"--> {event.name}", at=event.at, job=event.job, step=event.step)
            case StepFinished(conclusion=Conclusion.FAILURE):
                self._failed_step = self._failed_step or self._failure(event)
            case StepFinished() if event.is_forgiven:
                said = f"--> {self._failure(event)}, and the job goes on: continue-on-error"
                self._log.say(said, at=event.at, job=event.job, step=event.step)
            case Annotation() if event.file or event.title:  # the message itself stands in the log
                place = f"{event.file}:{event.line}: " if event.file and event.line else ""
                text = f"{event.level}: {place}{event.message}"
                self._log.say(text, at=event.at, job=event.job, step=event.step)
            case ArtifactStored():
                self._owners[event.path] = (event.name, event.job)
            case _:
                pass

    def _failure(self, event: StepFinished) -> str:
        name = self._steps.get((event.job, event.step), str(event.step))
        how = "failed" if event.exit_code is None else f"failed with exit status {event.exit_code}"
        return f"step '{name}' of job '{event.job}' {how}"

    async def _collect(self, checkout: Checkout) -> int:
        """Write the manifest of what the run left; how many files that is."""
        await asyncio.to_thread(self._place.artifacts.mkdir, parents=True, exist_ok=True)
        artifacts, left_out = await asyncio.to_thread(gather, self._place.artifacts, self._owners)
        if left_out:
            self._log.say(f"==> {left_out}")
        request = self._build.request
        manifest = Manifest(
            build_id=self._build.id,
            repo_url=request.repo_url,
            branch=request.branch or checkout.ref.removeprefix("refs/heads/"),
            commit=checkout.sha,
            created_at=self._build.updated_at.isoformat(),
            total_size=sum(artifact.size for artifact in artifacts),
            artifacts=artifacts,
        )
        await asyncio.to_thread(write_manifest, self._place.manifest, manifest)
        return len(artifacts)

    async def _advance(self, state: State, **values: Any) -> None:
        self._become(await self._deps.store.advance(self._build, state, **values))

    def _become(self, build: Build | None) -> None:
        if build is None:
            raise SupersededError(self._build.id)
        self._build = build
        self._deps.publish(build)

    def _outcome(self, result: RunResult, count: int) -> Outcome:
        if result.conclusion in (Conclusion.SUCCESS, Conclusion.SKIPPED):
            return Outcome(Conclusion.SUCCESS, artifacts_count=count)
        if result.conclusion is Conclusion.CANCELLED:
            return dataclasses.replace(self._stopped(self._stop.cause or CancelCause.USER), artifacts_count=count)
        said = [job.message for job in result.jobs.values() if job.message and job.conclusion is Conclusion.FAILURE]
        timeout_s = self._build.request.timeout_s
        late = f"the build took longer than {timeout_s:g} s" if result.seconds >= timeout_s else ""
        message = late or self._failed_step or result.message or (said[0] if said else "the run failed")
        return Outcome(Conclusion.FAILURE, message, artifacts_count=count)

    async def _park(self, result: RunResult, count: int) -> Outcome:
        """The jobs that wait go on in another attempt of this build, which finds the others as they are now."""
        names = dict.fromkeys(job.environment for job in result.jobs.values() if job.environment)
        await self._deps.store.gates.ask(self._build.id, names, self._deps.clock.now())
        await asyncio.to_thread(self._place.park)
        message = f"waiting for the environment{'' if len(names) == 1 else 's'} {', '.join(names)}"
        return Outcome(Conclusion.WAITING, message, artifacts_count=count)

    def _stopped(self, cause: CancelCause) -> Outcome:
        if cause is self._stop.cause is CancelCause.SHUTDOWN:
            return Outcome(Conclusion.CANCELLED, again=True)
        return CANCELLED


def _outcomes(result: RunResult) -> dict[str, JobOutcome]:
    return {key: JobOutcome(job.conclusion.value, job.outputs) for key, job in result.jobs.items()}
