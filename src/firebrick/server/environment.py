"""Environments of a repository, as the settings have them: what they give to jobs, and whether they let them in. Pure: the moment is given.

A job may be in an environment when its branch is one of those allowed, somebody has approved where that is needed, and the wait since the first
job of the build came to it is over. Whoever rejects ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from firebrick.node.order import EnvironmentOrder
from firebrick.server.gate import Gate
from firebrick.workflow.event.pattern import parse_patterns
from firebrick.workflow.expression.value import fold

_BRANCH: Final = "refs/heads/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """`branches` None: all refs. `wait_minutes` 0: none."""

    name: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)
    approval: bool = False
    wait_minutes: float = 0.0
    branches: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """At most one of both is said. `until` is when a wait ends by itself, None where a person has to decide first."""

    waits: str = ""
    refusal: str = ""
    until: datetime | None = None


def rule(environment: Environment, ref: str, gate: Gate | None, now: datetime) -> Ruling:
    """Whether jobs of a build on `ref` may be in the environment; `gate` is there once one has come to it."""
    if not _allows(environment, ref):
        name = ref.removeprefix(_BRANCH).removeprefix("refs/")
        kind = "Branch" if ref.startswith(_BRANCH) else "Ref"
        text = f"{kind} '{name}' is not allowed to deploy to {environment.name} due to environment protection rules."
        return Ruling(refusal=text)
    if gate is not None and gate.approved is False:
        comment = f": {gate.comment}" if gate.comment else "."
        return Ruling(refusal=f"The deployment to {environment.name} was rejected{comment}")
    if environment.approval and (gate is None or gate.approved is None):
        return Ruling(waits=f"Waiting for an approval of the environment {environment.name}.")
    until = (gate.asked_at if gate is not None else now) + timedelta(minutes=environment.wait_minutes)
    if now < until:
        return Ruling(
            waits=f"Waiting for the environment {environment.name} until {until:%Y-%m-%d %H:%M:%S} UTC.", until=until
        )
    return Ruling()


def _allows(environment: Environment, ref: str) -> bool:
    if environment.branches is None:
        return True
    return ref.startswith(_BRANCH) and parse_patterns(environment.branches).takes(ref.removeprefix(_BRANCH))


def environment_orders(
    environments: Iterable[Environment], ref: str, gates: Iterable[Gate], now: datetime, *, trusted: bool
) -> dict[str, EnvironmentOrder]:
    """What a node is told of each. What is not `trusted` gets no secrets."""
    asked = {fold(gate.environment): gate for gate in gates}
    orders: dict[str, EnvironmentOrder] = {}
    for environment in environments:
        ruling = rule(environment, ref, asked.get(fold(environment.name)), now)
        orders[environment.name] = EnvironmentOrder(
            secrets=environment.secrets if trusted else {},
            variables=environment.variables,
            waits=ruling.waits,
            refusal=ruling.refusal,
        )
    return orders
