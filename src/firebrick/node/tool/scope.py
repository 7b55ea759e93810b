"""Whose tools a job sees. The rules are those of cache entries: a job keeps tools for its own ref alone, and finds those of its ref, of the branch it
would be merged into, and of the default branch. So nothing a pull request keeps is ever found by a branch."""

from __future__ import annotations

from dataclasses import dataclass

from firebrick.node.order import RunOrder
from firebrick.node.scope import run_scopes, tenant_of
from firebrick.text import encodable


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScope:
    """`tenant` is where the repository is, `repository` what it is called; `read` are refs in the order they are searched, `write` is None for a
    job that may keep nothing. `workflow` and `job` say which job it is, whatever combination of its matrix."""

    tenant: str
    repository: str
    workflow: str
    job: str
    read: tuple[str, ...]
    write: str | None


def scope_of(order: RunOrder, job: str) -> JobScope:
    """Of the job with the id `job`. One whose machine is to be the same each time keeps nothing: the next one would find it."""
    scopes = run_scopes(order)
    return JobScope(
        tenant=encodable(tenant_of(order)),
        repository=encodable(order.source.repository),
        workflow=encodable(order.workflow.path),
        job=job,
        read=tuple(map(encodable, scopes.read)),
        write=encodable(scopes.write) if scopes.write is not None and order.resources.fixed is None else None,
    )
