"""Which contexts and functions an expression may name, for each place in a workflow file."""

from __future__ import annotations

from firebrick.workflow.expression.parser import HASH_FUNCTION, STATUS_FUNCTIONS, Allowed

_EVENT = frozenset({"github", "inputs", "vars"})
_JOB = _EVENT | {"needs"}
_MATRIX = _JOB | {"strategy", "matrix"}
_STEP = _MATRIX | {"steps", "job", "runner", "env"}

# A job's conditions take names of the jobs to ask about.
_JOB_STATUS = {**STATUS_FUNCTIONS, "success": (0, 255), "failure": (0, 255)}

RUN_NAME = Allowed(_EVENT)
WORKFLOW_CONCURRENCY = Allowed(_EVENT)
WORKFLOW_ENV = Allowed(_EVENT | {"secrets"})
WORKFLOW_OUTPUT = Allowed(_EVENT | {"jobs"})
JOB_IF = Allowed(_JOB, _JOB_STATUS)
STRATEGY = Allowed(_JOB)
JOB = Allowed(_MATRIX)
JOB_ENV = Allowed(_MATRIX | {"secrets"})
JOB_DEFAULTS = Allowed(_MATRIX | {"env"})
JOB_OUTPUTS = Allowed(_STEP | {"secrets"})
CONTAINER_CREDENTIALS = Allowed(_MATRIX | {"secrets", "env"})
ENVIRONMENT_URL = Allowed(_STEP)
SNAPSHOT_IF = Allowed(_MATRIX, STATUS_FUNCTIONS)
CALL_WITH = Allowed(_MATRIX)
CALL_SECRETS = Allowed(_MATRIX | {"secrets"})
STEP_IF = Allowed(_STEP, {**STATUS_FUNCTIONS, **HASH_FUNCTION})
STEP = Allowed(_STEP | {"secrets"}, HASH_FUNCTION)

# In an `action.yml`.
_ACTION = frozenset({"github", "strategy", "matrix", "job", "runner"})
_COMPOSITE = _ACTION | {"inputs", "steps", "env"}
ACTION_INPUT = Allowed(_ACTION, HASH_FUNCTION)
ACTION_OUTPUT = Allowed(_COMPOSITE)
ACTION_STEP = Allowed(_COMPOSITE, HASH_FUNCTION)
ACTION_STEP_IF = Allowed(_COMPOSITE, {**STATUS_FUNCTIONS, **HASH_FUNCTION})
ACTION_HOOK_IF = Allowed(_ACTION | {"inputs", "env"}, {**STATUS_FUNCTIONS, **HASH_FUNCTION})
ACTION_CONTAINER = Allowed(frozenset({"inputs"}))
