"""The life of one attempt at one build, read from top to bottom.

    clone      the repository's tree onto this host               cloning_repo
    plan       the workflow that is to run on it
    run        the workflow on the node                           starting_vm, then running_build with the first machine
    collect    hash what the jobs left, write the manifest        collecting_artifacts
    clear      the clone goes, whatever happened

What comes out is an `Outcome`; nothing is raised but cancellation and `SupersededError`. The queue records the outcome, last of all: a build that is
reported as ended holds nothing any more.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
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
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.server.artifact import Manifest, gather, write_manifest
from firebrick.server.errors import PlanError
from firebrick.server.log import BuildLog
from firebrick.server.place import Place
from firebrick.server.plan import Plan
from firebrick.server.record import Build, BuildRequest, Outcome, State
from firebrick.server.settings import ServeSettings
from firebrick.server.stop import Stop, StoppedError
from firebrick.server.store import Store
from firebrick.task import shielded
from firebrick.workflow.problem import WorkflowError

_OVERTIME_S: Final = 600.0
_BREATH_EVENTS: Final = 128
_LONGEST_MESSAGE: Final = 8192
CANCELLED: Final = Outcome(Conclusion.CANCELLED, "cancelled")
_log = structlog.get_logger("firebrick.server")


class SupersededError(Exception):
    """The build is not in this attempt's hands any more."""


class Planner(Protocol):
    """Says what is to run on a tree. Raises PlanError and WorkflowError."""

    def __call__(self, tree: Path, request: BuildRequest) -> Plan: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What every attempt works with. `publish` tells followers of a build's new state."""

    store: Store
    node: RunHost
    plan: Planner
    settings: ServeSettings
    publish: Callable[[Build], None]


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

    def __init__(self, build: Build, place: Place, tools: Tools, log: BuildLog, stop: Stop) -> None:
        self._build = build
        self._place = place
        self._tools = tools
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
        checkout = await self._stop.bound(self._clone())
        plan = await asyncio.to_thread(self._tools.plan, checkout.path, self._build.request)
        await self._advance(State.STARTING, sha=checkout.sha)
        result = await self._stop.bound(self._run(plan, checkout), CancelCause.SHUTDOWN)
        await self._advance(State.COLLECTING)
        count = await self._collect(checkout)
        return self._outcome(result, count)

    async def _clone(self) -> Checkout:
        request = self._build.request
        address = self._address()
        what = " ".join(filter(None, (request.branch, request.commit))) or "the default branch"
        self._log.say(f"==> Cloning {address.url} ({what})")
        return await clone(
            address,
            self._place.source,
            branch=request.branch,
            commit=request.commit,
            limits=self._tools.settings.clone_limits,
        )

    def _address(self) -> Address:
        settings = self._tools.settings
        address = parse_address(self._build.request.repo_url, protocols=settings.protocols)
        credential = self._place.credential() or settings.credential_for(address.host)
        return dataclasses.replace(address, credential=credential)

    async def _run(self, plan: Plan, checkout: Checkout) -> RunResult:
        """Have the node run it, and pass on what it tells. A user's cancel lets the run wind up; a shutdown does not come here: it leaves."""
        self._log.say(f"==> Running {plan.workflow.name} on {checkout.sha[:12]}")
        order = self._order(plan, checkout)
        breath = Breath()
        # Its time begins when it has its place in its concurrency group, for which it waits as long as it may take.
        turns = 1 if plan.workflow.concurrency is None else 2
        limit = order.resources.timeout_s * turns + _OVERTIME_S
        async with asyncio.timeout(limit), self._tools.node.start_run(order) as run:
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

    def _order(self, plan: Plan, checkout: Checkout) -> RunOrder:
        request = self._build.request
        address = parse_address(request.repo_url, protocols=frozenset({request.repo_url.partition("://")[0]}))
        return RunOrder(
            id=f"{self._build.id}-{self._build.attempt}",
            workflow=plan.workflow,
            source=Source(
                path=checkout.path,
                repository=address.repository,
                ref=checkout.ref,
                sha=checkout.sha,
                tenant=address.place,
                remote=self._address(),
            ),
            artifact_dir=self._place.artifacts,
            resources=Resources(vcpus=request.vcpus, memory_mib=request.memory_mib, timeout_s=request.timeout_s),
            image=request.image or None,
            collect=plan.collect,
        )

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
                self._note_failure(event)
            case Annotation():
                place = f"{event.file}:{event.line}: " if event.file and event.line else ""
                text = f"{event.level}: {place}{event.message}"
                self._log.say(text, at=event.at, job=event.job, step=event.step)
            case ArtifactStored():
                self._owners[event.path] = (event.name, event.job)
            case _:
                pass

    def _note_failure(self, event: StepFinished) -> None:
        name = self._steps.get((event.job, event.step), str(event.step))
        how = "failed" if event.exit_code is None else f"failed with exit status {event.exit_code}"
        self._failed_step = self._failed_step or f"step '{name}' of job '{event.job}' {how}"

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
        build = await self._tools.store.advance(self._build, state, **values)
        if build is None:
            raise SupersededError(self._build.id)
        self._build = build
        self._tools.publish(build)

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

    def _stopped(self, cause: CancelCause) -> Outcome:
        if cause is self._stop.cause is CancelCause.SHUTDOWN:
            return Outcome(Conclusion.CANCELLED, again=True)
        return CANCELLED
