"""What a job runs in and beside: the image of its machine, which may be a container's, and its services. Known before it has a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from firebrick.node.container.services import NETWORK, Party, Served, Wanted, find_images, serving, warn
from firebrick.node.context import with_token
from firebrick.node.guest import Borrower, Lender, Loan
from firebrick.node.label import image_of
from firebrick.node.order import RunOrder
from firebrick.node.settings import NodeSettings
from firebrick.workflow.container.container import ContainerSpec, container_spec, service_specs
from firebrick.workflow.context import env_context, job_context
from firebrick.workflow.expression.expression import Scope
from firebrick.workflow.expression.value import Value
from firebrick.workflow.outcome import SUCCESS, runs_on_labels
from firebrick.workflow.plan import PlannedJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`image` is one of the store, `title` what the workflow calls it. `env` is what a container gives to every step, weaker than all the workflow
    says."""

    image: str
    title: str
    container: ContainerSpec | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    services: Sequence[Wanted] = ()

    @asynccontextmanager
    async def around(self, loan: Loan, job: Borrower) -> AsyncIterator[Served]:
        """The services, ready, beside the machine of the job while the context lasts."""
        if not self.services:
            yield Served()
            return
        party = Party(job=job, guest=loan.guest, contained=self.container is not None)
        async with serving(self.services, party) as served:
            yield served

    def facts(self, loan: Loan, served: Served) -> dict[str, Value]:
        """What the context `job` says of it all."""
        container: dict[str, Value] = {"container": {"id": loan.machine, "network": NETWORK}}
        services: dict[str, Value] = {"services": dict(served.context)}
        return {**(container if self.container is not None else {}), **(services if served.services else {})}


async def find_surroundings(
    order: RunOrder, planned: PlannedJob, scope: Scope, borrower: Borrower, settings: NodeSettings
) -> Surroundings:
    """What the job asks for, with every image made. Raises EvaluationError, LabelError, ContainerError, ImageError."""
    job = planned.job
    if job.container is None and not job.services:
        name = await _machine_image(order, planned, scope, borrower.lender, settings)
        return Surroundings(image=name, title=name)
    seen = _scope(order, planned, scope)
    container = container_spec(job.container, seen) if job.container is not None else None
    specs = service_specs(job.services, seen)
    services = await find_images(specs, borrower)
    if container is None:
        name = await _machine_image(order, planned, scope, borrower.lender, settings)
        return Surroundings(image=name, title=name, services=services)
    image = await borrower.image(container.image, container.login)
    warn(_without_effect(container), borrower.say)
    env = {**image.config.env, **container.options.env, **container.env}
    return Surroundings(image=image.name, title=container.image, container=container, env=env, services=services)


def _without_effect(container: ContainerSpec) -> list[str]:
    options = container.options
    texts = [f"The option {option} of the container has no effect here." for option in options.ignored]
    unused = {
        "--user": options.user,
        "--workdir": options.directory,
        "--entrypoint": options.entrypoint,
        "--hostname": options.hostname,
        "--memory": options.memory_mib,
        "--cpus": options.vcpus,
        "--health-cmd": options.health.command,
    }
    texts += [f"The option {option} of the container has no effect here." for option, said in unused.items() if said]
    return texts + [f"The volume {volume} of the container has no effect here." for volume in container.volumes]


async def _machine_image(
    order: RunOrder, planned: PlannedJob, scope: Scope, lender: Lender, settings: NodeSettings
) -> str:
    if order.image is not None:
        return order.image
    labels = runs_on_labels(planned.job, scope)
    images = await lender.images()
    return image_of(labels, images=images, configured=settings.labels, default=settings.default_image)


def _scope(order: RunOrder, planned: PlannedJob, scope: Scope) -> Scope:
    """What `container` and `services` may name, before there is a machine: no step has run, and nothing is known of a runner."""
    github = with_token(scope.contexts.get("github"), order.secrets)
    nothing: dict[str, Value] = {"steps": {}, "job": job_context(SUCCESS), "runner": {}}
    known = {**scope.contexts, "github": github, "secrets": dict(order.secrets), **nothing}
    env: dict[str, str] = {}
    for layer in (order.workflow.env, planned.job.env):
        env.update(layer.texts(Scope({**known, "env": env_context(env)}, scope.functions)))
    return Scope({**known, "env": env_context(env)}, scope.functions)
