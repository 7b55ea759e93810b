import json

import pytest

from firebrick.workflow.called import load_calls, load_with
from firebrick.workflow.job_reader import read_permissions
from firebrick.workflow.permission import effective, excess, granted
from firebrick.workflow.problem import WorkflowError
from firebrick.workflow.reader import read_workflow
from firebrick.workflow.reference import OWN, Target, TargetError, parse_target
from firebrick.workflow.syntax import Permissions

PLAIN = {"runs-on": "x", "steps": [{"run": "x"}]}


def text(jobs, on="push", **keys):
    return json.dumps({"on": on, **keys, "jobs": jobs})


def calls(*names, **keys):
    return {f"j{index}": {"uses": f"./.github/workflows/{name}.yml", **keys} for index, name in enumerate(names)}


def reusable(jobs=None, inputs=None, secrets=None, **keys):
    return text(jobs or {"a": PLAIN}, {"workflow_call": {"inputs": inputs or {}, "secrets": secrets or {}}}, **keys)


def load(root, **files):
    asked = []

    def find(target):
        asked.append(target)
        name = target.path.rpartition("/")[2].removesuffix(".yml")
        return files[name].encode() if name in files else None

    return load_with(read_workflow(root, "ci.yml"), find), asked


def mistakes(root, **files):
    with pytest.raises(WorkflowError) as raised:
        load(root, **files)
    return [f"{problem.file}: {problem.message}" for problem in raised.value.errors]


@pytest.mark.parametrize(
    ("uses", "target"),
    [
        ("./.github/workflows/x.yml", Target(".github/workflows/x.yml")),
        ("./.forgejo/workflows/x.yaml", Target(".forgejo/workflows/x.yaml")),
        ("o/r/.github/workflows/x.yml@v1", Target(".github/workflows/x.yml", "o/r", "v1")),
        (
            "o/.github/.github/workflows/x.yml@refs/heads/a",
            Target(".github/workflows/x.yml", "o/.github", "refs/heads/a"),
        ),
    ],
)
def test_references(uses, target):
    assert parse_target(uses) == target
    assert str(target) == uses


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ("./.github/workflows/x.yml@v1", "cannot specify version when calling local workflows"),
        ("o/r/.github/workflows/x.yml", "no version specified"),
        ("o/r/.github/workflows/x.yml@", "no version specified"),
        ("o/r/.github/workflows/x.yml@-x", "no version specified"),
        ("o/r/.github/workflows/x.yml@a..b", "no version specified"),
        (
            "x.yml@v1",
            "references to workflows must be prefixed with format 'owner/repository/' or './' for local workflows",
        ),
        ("o/../.github/workflows/x.yml@v1", "must be prefixed"),
        ("./workflows/x.yml", "references to workflows must be rooted in '.github/workflows'"),
        ("./.github/workflows/../../x.yml", "workflows must be defined at the top level"),
        (
            "./.github/workflows/a/x.yml",
            "workflows must be defined at the top level of the .github/workflows/ directory",
        ),
        ("./.github/workflows/x.json", "workflow file should have either a '.yml' or '.yaml' file extension"),
        ("./.github/workflows/.yml", "file extension"),
        ("./.github/workflows/x\n.yml", "characters that cannot be printed"),
        ("./.github/workflows/" + "x" * 600 + ".yml", "too long"),
    ],
)
def test_what_is_no_reference(uses, message):
    with pytest.raises(TargetError, match="invalid value workflow reference") as raised:
        parse_target(uses)
    assert message in str(raised.value)


def test_a_wrong_reference_is_a_mistake_of_the_file():
    with pytest.raises(WorkflowError) as raised:
        read_workflow("on: push\njobs:\n  a:\n    uses: ./x.yml\n", "ci.yml")
    (problem,) = raised.value.errors
    assert (problem.line, problem.column) == (4, 5)
    assert "rooted in '.github/workflows'" in problem.message


def test_a_local_file_of_another_repository_is_of_that():
    within = Target(".github/workflows/x.yml", "o/r", "v1")
    assert parse_target("./.github/workflows/y.yml", within) == Target(".github/workflows/y.yml", "o/r", "v1")


def test_every_file_is_asked_for_once():
    found, asked = load(text(calls("one", "two", "one")), one=reusable(calls("two")), two=reusable())
    assert sorted(target.path for target in found.found) == [".github/workflows/one.yml", ".github/workflows/two.yml"]
    assert len(asked) == 2
    call = found.found[asked[0]].jobs["j0"].call
    assert found.knows(OWN, call)
    assert found.callee(asked[0], call)[1].path == ".github/workflows/two.yml"


def test_files_that_are_not_there_or_have_mistakes():
    assert mistakes(
        text(calls("one", "two", "three")), two="on: workflow_call\njobs: {}\nx: 1\n", three=text({"a": PLAIN})
    ) == [
        "ci.yml: error parsing called workflow './.github/workflows/one.yml': workflow was not found.",
        ".github/workflows/two.yml: The workflow must contain at least one job with no dependencies.",
        ".github/workflows/two.yml: Unexpected value 'x'",
        (
            "ci.yml: error parsing called workflow './.github/workflows/three.yml': workflow is not reusable as it is missing a "
            "`on.workflow_call` trigger"
        ),
    ]


def test_inputs_and_secrets_that_do_not_fit():
    called = reusable(
        inputs={"word": {"type": "string", "required": True}, "deep": {"type": "boolean"}, "n": {"type": "number"}},
        secrets={"KEY": {"required": True}, "MAY": None},
    )
    jobs = calls("one", **{"with": {"deep": "true", "n": 1, "other": 1}, "secrets": {"may": "x", "NONE": "x"}})
    assert mistakes(text(jobs), one=called) == [
        "ci.yml: Invalid input, other is not defined in the referenced workflow.",
        "ci.yml: Input word is required, but not provided while calling.",
        "ci.yml: Unexpected value 'true' for the input 'deep', which is a boolean",
        "ci.yml: Invalid secret, NONE is not defined in the referenced workflow.",
        "ci.yml: Secret KEY is required, but not provided while calling.",
    ]
    good = calls("one", **{"with": {"Word": "x", "deep": "${{ inputs.d }}"}, "secrets": "inherit"})
    assert load(text(good), one=called)[0].found


def test_cycles():
    assert mistakes(text(calls("one")), one=reusable(calls("two")), two=reusable(calls("one")))[0].endswith(
        "calls a workflow that calls it: ./.github/workflows/one.yml -> ./.github/workflows/two.yml -> ./.github/workflows/one.yml"
    )
    assert "calls a workflow that calls it" in mistakes(text(calls("one")), one=reusable(calls("one")))[0]


def chain(length):
    files = {f"f{index}": reusable(calls(f"f{index + 1}")) for index in range(1, length)}
    return {**files, f"f{length}": reusable()}


def test_ten_levels_and_no_more():
    assert len(load(text(calls("f1")), **chain(9))[0].found) == 9
    (mistake,) = mistakes(text(calls("f1")), **chain(10))
    assert mistake == (
        ".github/workflows/f9.yml: job 'j0' calls workflow './.github/workflows/f10.yml', but doing so would exceed the limit "
        "on called workflow depth of 10"
    )


def test_fifty_workflows_and_no_more():
    files = {f"f{index}": reusable() for index in range(51)}
    assert len(load(text(calls(*list(files)[:50])), **files)[0].found) == 50
    assert mistakes(text(calls(*files)), **files) == [
        "ci.yml: The workflow calls more than 50 unique reusable workflows"
    ]


def test_paths_without_end_take_no_time():
    # 3 ** 9 ways lead to the last.
    files = {
        f"f{index}": reusable(calls(*[f"f{index + 1}"] * 3), permissions={"contents": "read"}) for index in range(1, 9)
    }
    assert len(load(text(calls("f1"), permissions="read-all"), **files, f9=reusable())[0].found) == 9


def test_permissions_may_only_narrow():
    jobs = {"j": {**calls("one")["j0"], "permissions": {"contents": "read", "packages": "write"}}}
    inner = {
        "ok": {**PLAIN, "permissions": {"packages": "read"}},
        "bad": {**PLAIN, "permissions": {"contents": "write", "issues": "read"}},
    }
    assert mistakes(text(jobs), one=reusable(inner)) == [
        (
            ".github/workflows/one.yml: The nested job 'bad' is requesting 'contents: write, issues: read', but is only allowed "
            "'contents: read, issues: none'."
        )
    ]
    assert load(text(calls("one")), one=reusable(inner))[0].found
    assert len(mistakes(text(calls("one"), permissions="read-all"), one=reusable(inner))) == 1
    # What a called workflow leaves out it has from its caller, and passes on.
    assert len(mistakes(text(jobs), one=reusable(calls("two")), two=reusable(inner))) == 1


def test_levels_of_permissions():
    everything, reading = read_permissions("write-all"), read_permissions("read-all")
    assert everything.level("contents") == "write"
    assert excess(reading, everything) == []
    assert excess(everything, reading) == [("*", "write", "read")]
    assert granted(reading) == {"*": "read"}
    assert read_permissions(None) is None
    few = Permissions(scopes={"contents": "write", "pages": "none"})
    assert granted(few) == {"contents": "write"}
    assert excess(few, reading) == [("contents", "write", "read")]
    assert excess(reading, few) == [("pages", "read", "none"), ("*", "read", "none")]
    assert effective(None, None, few) is few
    assert effective(everything, few, None) is few
    assert effective(everything, None, few) is everything


def test_only_local_ones():
    jobs = {"a": {"uses": "o/r/.github/workflows/x.yml@v1"}, **calls("one")}
    loading = load_calls(read_workflow(text(jobs), "ci.yml"), local_only=True)
    assert str(next(loading)) == "./.github/workflows/one.yml"
    with pytest.raises(StopIteration) as stopped:
        loading.send(reusable().encode())
    assert len(stopped.value.value.found) == 1
