"""A build, cloned and planned, made into an order for the node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from firebrick.forge.address import Address
from firebrick.forge.clone import Checkout
from firebrick.node.contract import RunHost
from firebrick.node.earlier import Earlier
from firebrick.node.errors import NodeError
from firebrick.node.kept.rerun import Rerun
from firebrick.node.order import Resources, RunOrder, Source
from firebrick.server.environment import environment_orders
from firebrick.server.errors import PlanError
from firebrick.server.gate import Gate
from firebrick.server.place import Place
from firebrick.server.plan import Plan
from firebrick.server.record import Build, Repeat
from firebrick.server.repository import RepositorySettings
from firebrick.workflow.syntax import Workflow

_TRUSTED = ("refs/heads/", "refs/tags/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order goes by besides the build: the repository and what the settings say of it, what was decided on its environments by now, and the
    checkpoint to go on from, if any."""

    address: Address
    said: RepositorySettings
    gates: Sequence[Gate]
    now: datetime
    rerun: Rerun | None = None


def run_id(build: Build, attempt: int | None = None) -> str:
    """What a node knows an attempt at a build by; without a number, the current one."""
    return f"{build.id}-{build.attempt if attempt is None else attempt}"


def is_trusted(build: Build, ref: str) -> bool:
    """Whether a run on this ref is given secrets: not where a stranger may have proposed what is built, nor where a caller says what is run."""
    repeat = build.request.repeat
    told = build.request.command or (repeat is not None and repeat.command)
    return ref.startswith(_TRUSTED) and not told


def make_order(
    build: Build,
    workflow: Workflow,
    plan: Plan,
    checkout: Checkout,
    place: Place,
    terms: Terms,
) -> RunOrder:
    """May take a while: it reads what an earlier attempt has left."""
    request, address = build.request, terms.address
    trusted = is_trusted(build, checkout.ref)
    return RunOrder(
        id=run_id(build),
        workflow=workflow,
        source=Source(
            path=checkout.path,
            repository=address.repository,
            ref=checkout.ref,
            sha=checkout.sha,
            tenant=address.place,
            remote=address,
            event_name=request.event or "push",
            event=plan.payload,
        ),
        artifact_dir=place.artifacts,
        resources=Resources(vcpus=request.vcpus, memory_mib=request.memory_mib, timeout_s=request.timeout_s),
        image=request.image or None,
        collect=plan.collect,
        secrets=terms.said.plain_secrets if trusted else {},
        rerun=terms.rerun,
        inputs=plan.inputs,
        variables=terms.said.variables,
        earlier=Earlier() if terms.rerun is not None else place.earlier(),
        number=build.run_attempt,
        origin=build.origin,
        environments=environment_orders(
            terms.said.known_environments, checkout.ref, terms.gates, terms.now, trusted=trusted
        ),
    )


def find_rerun(node: RunHost, build: Build | None, repeat: Repeat) -> Rerun:
    """The checkpoint to go on from: of the last attempt at `build` that has it. Raises PlanError where none is kept."""
    missing = NodeError(f"there is no build {repeat.build}")
    for attempt in range(build.attempt if build is not None else 0, 0, -1):
        assert build is not None
        try:
            entry = node.checkpoint(run_id(build, attempt), repeat.job or None, repeat.step)
        except NodeError as error:
            missing = error
        else:
            return Rerun(entry=entry, command=repeat.command or None)
    raise PlanError(f"cannot go on from step {repeat.step}: {missing}", hint=missing.hint)
