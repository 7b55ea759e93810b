from firebrick.workflow.context import (
    CommandPaths,
    GuestPaths,
    RunFacts,
    action_name,
    action_names,
    default_environment,
    env_context,
    github_context,
    job_context,
    runner_context,
    step_environment,
)
from firebrick.workflow.expression.expression import Scope, parse_expression

FACTS = RunFacts(
    run_id="77",
    repository="ada/engine",
    ref="refs/heads/feature/x",
    sha="abc",
    workflow="CI",
    workflow_path=".github/workflows/ci.yml",
    actor="ada",
)
FILES = CommandPaths(env="/t/env", output="/t/output", path="/t/path", state="/t/state", step_summary="/t/summary")
# Every variable of a step, as the reference of the language lists them.
VARIABLES = """GITHUB_ACTIONS AGENT_TOOLSDIRECTORY RUNNER_OS RUNNER_ARCH RUNNER_NAME RUNNER_ENVIRONMENT RUNNER_TEMP RUNNER_TOOL_CACHE RUNNER_WORKSPACE
GITHUB_ACTION GITHUB_ACTION_REF GITHUB_ACTION_REPOSITORY GITHUB_ACTOR GITHUB_ACTOR_ID GITHUB_API_URL GITHUB_BASE_REF GITHUB_ENV GITHUB_EVENT_NAME
GITHUB_EVENT_PATH GITHUB_GRAPHQL_URL GITHUB_HEAD_REF GITHUB_JOB GITHUB_OUTPUT GITHUB_PATH GITHUB_REF GITHUB_REF_NAME GITHUB_REF_PROTECTED GITHUB_REF_TYPE
GITHUB_REPOSITORY GITHUB_REPOSITORY_ID GITHUB_REPOSITORY_OWNER GITHUB_REPOSITORY_OWNER_ID GITHUB_RETENTION_DAYS GITHUB_RUN_ATTEMPT GITHUB_RUN_ID
GITHUB_RUN_NUMBER GITHUB_SERVER_URL GITHUB_SHA GITHUB_STATE GITHUB_STEP_SUMMARY GITHUB_TRIGGERING_ACTOR GITHUB_WORKFLOW GITHUB_WORKFLOW_REF
GITHUB_WORKFLOW_SHA GITHUB_WORKSPACE"""


def environment(facts: RunFacts = FACTS) -> dict[str, str]:
    runner = runner_context(name="n1", arch="X64", paths=GuestPaths())
    return default_environment(facts, job="build", runner=runner, paths=GuestPaths(), files=FILES, action="__run")


def test_every_variable_is_there():
    assert sorted(environment()) == sorted(VARIABLES.split())


def test_variables():
    found = environment()
    assert found["GITHUB_REF_NAME"] == "feature/x"
    assert found["GITHUB_REF_TYPE"] == "branch"
    assert found["GITHUB_REPOSITORY_OWNER"] == "ada"
    assert found["GITHUB_WORKFLOW_REF"] == "ada/engine/.github/workflows/ci.yml@refs/heads/feature/x"
    assert found["GITHUB_TRIGGERING_ACTOR"] == "ada"
    assert found["GITHUB_STEP_SUMMARY"] == "/t/summary"
    assert (found["RUNNER_OS"], found["RUNNER_ARCH"]) == ("Linux", "X64")
    assert "RUNNER_DEBUG" not in found


def test_names_of_refs():
    assert RunFacts(run_id="1", repository="a/b", ref="refs/tags/v1", sha="c", workflow="w").ref_type == "tag"
    assert RunFacts(run_id="1", repository="a/b", ref="refs/tags/v1", sha="c", workflow="w").ref_name == "v1"
    assert RunFacts(run_id="1", repository="a/b", ref="refs/pull/7/merge", sha="c", workflow="w").ref_name == "7/merge"


def test_branches_of_a_pull_request():
    event = {"pull_request": {"head": {"ref": "topic"}, "base": {"ref": "main"}}}
    facts = RunFacts(
        run_id="1",
        repository="a/b",
        ref="refs/pull/7/merge",
        sha="c",
        workflow="w",
        event_name="pull_request",
        event=event,
    )
    assert (environment(facts)["GITHUB_HEAD_REF"], environment(facts)["GITHUB_BASE_REF"]) == ("topic", "main")
    assert environment()["GITHUB_HEAD_REF"] == ""


def test_github_context():
    context = github_context(FACTS, job="build", paths=GuestPaths(workspace="/w"), token="t")
    assert context["ref_name"] == "feature/x"
    assert context["workspace"] == "/w"
    assert context["ref_protected"] is False
    assert context["repositoryUrl"] == "git://github.com/ada/engine.git"
    assert context["token"] == "t"
    assert parse_expression("github.repository_owner").evaluate(Scope({"github": context})) == "ada"


def test_a_server_of_ones_own():
    facts = RunFacts(
        run_id="1", repository="a/b", ref="r", sha="c", workflow="w", server_url="http://forge.localhost:80/"
    )
    assert environment(facts)["GITHUB_SERVER_URL"] == "http://forge.localhost:80"
    assert environment(facts)["GITHUB_API_URL"] == "http://forge.localhost:80/api/v3"


def test_layers_of_the_environment():
    layers = [{"A": "workflow", "B": "workflow"}, {"B": "job", "GITHUB_SHA": "forged", "CI": "no"}, {"PATH": "/set"}]
    found = step_environment(layers, {"GITHUB_SHA": "abc"}, added_path=["/x", "/y"], path="/bin")
    assert found == {"A": "workflow", "B": "job", "CI": "no", "GITHUB_SHA": "abc", "PATH": "/y:/x:/set"}
    assert step_environment([], {}, added_path=["/x"], path="/bin") == {"CI": "true", "PATH": "/x:/bin"}
    assert step_environment([], {}) == {"CI": "true"}


def test_env_is_found_by_exact_name():
    scope = Scope({"env": env_context({"Name": "1"})})
    assert parse_expression("env.Name").evaluate(scope) == "1"
    assert parse_expression("env.NAME").evaluate(scope) is None


def test_small_contexts():
    assert job_context("failure") == {"status": "failure"}
    assert runner_context(name="n", arch="X64", paths=GuestPaths(), debug=True)["debug"] == "1"


def test_action_names():
    assert action_name("mine", 3, None) == "mine"
    assert [action_name("", index, None) for index in (0, 1)] == ["__run", "__run_2"]
    assert action_name("", 0, "actions/checkout@v4") == "__actions_checkout"


def test_action_names_of_a_list_count_each_kind():
    steps = [
        ("", None),
        ("", "./a"),
        ("mine", None),
        ("", "o/r/p@v1"),
        ("", None),
        ("", "./b"),
        ("", "O/r@v2"),
        ("", "o/r/p@v2"),
    ]
    assert action_names(steps) == ["__run", "__self", "mine", "__o_r_p", "__run_2", "__self_2", "__O_r", "__o_r_p_2"]
