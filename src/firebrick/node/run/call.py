"""A job that calls a workflow: the order for what it calls, with its own inputs and secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from firebrick.node.context import with_token
from firebrick.node.order import RunOrder
from firebrick.workflow.called import Calls, declared_secrets
from firebrick.workflow.event.inputs import call_inputs, read_inputs
from firebrick.workflow.expression.expression import EvaluationError, Scope, Value
from firebrick.workflow.expression.function import MAX_TOGETHER, Budget
from firebrick.workflow.expression.value import fold
from firebrick.workflow.plan import Caller, Plan, PlannedJob
from firebrick.workflow.reference import OWN
from firebrick.workflow.syntax import Call, Workflow


def called_order(
    order: RunOrder, planned: Plan, copy: PlannedJob, call: Call, scope: Scope, calls: Calls
) -> tuple[Caller, RunOrder]:
    """Who calls, and the order for what is called. `order` and `planned` are the caller's, `scope` is what the calling job's expressions see.

    Raises EvaluationError; InputError for inputs that do not fit."""
    here = planned.caller.target if planned.caller is not None else OWN
    target, workflow = calls.callee(here, call)
    below = replace(
        order,
        workflow=workflow,
        inputs=call_inputs(read_inputs(workflow.on["workflow_call"]), _inputs(call, scope), scope),
        secrets=_secrets(order, call, scope, workflow),
        caller=order.caller or order.workflow,
    )
    return Caller(key=copy.key, name=copy.name, target=target, permissions=copy.permissions), below


def _inputs(call: Call, scope: Scope) -> Mapping[str, Value]:
    if call.with_.expression is None:
        budget = Budget(MAX_TOGETHER)
        return {name: template.value(scope, budget) for name, template in call.with_.entries.items()}
    value = call.with_.expression.value(scope)
    if not isinstance(value, Mapping):
        raise EvaluationError("Expected a mapping")
    return value


def _secrets(order: RunOrder, call: Call, scope: Scope, called: Workflow) -> Mapping[str, str]:
    """Those the called workflow declares, as far as they are given, and the token; all of the caller's where it inherits them."""
    if call.inherit_secrets:
        return order.secrets
    github = with_token(scope.contexts.get("github"), order.secrets)
    within = scope.with_contexts(secrets=dict(order.secrets), github=github)
    given = {fold(name): text for name, text in call.secrets.texts(within).items() if text}
    token = {name: value for name, value in order.secrets.items() if fold(name) == fold("GITHUB_TOKEN")}
    return {**token, **{name: given[fold(name)] for name in declared_secrets(called) if fold(name) in given}}
