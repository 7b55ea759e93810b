"""Whose all is that a run keeps - caches, artifacts, tools, images, machines - and what of it another run may have."""

from __future__ import annotations

from firebrick.node.order import RunOrder
from firebrick.results.scope import Scopes, scopes_of


def tenant_of(order: RunOrder) -> str:
    """Where its repository was cloned from, or the directory it is. What a repository is called says nothing."""
    return order.source.tenant or f"directory {order.source.path.resolve()}"


def run_scopes(order: RunOrder) -> Scopes:
    """The refs whose things a run of this order finds, and the one it keeps things for."""
    return scopes_of(order.source.event_name, order.source.ref, order.source.event)
