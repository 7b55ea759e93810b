"""Actions: phases in their order, what they are given, what they leave, and what a hostile one cannot do."""

import asyncio

import pytest

from firebrick.node.event import ActionResolved, CancelCause, JobStarted, LogLine, StepFinished, StepStarted

JS = "name: X\ndescription: x\nruns: {using: node20, main: main.js}\n"
PHASES = "name: X\ndescription: x\nruns: {using: node20, pre: pre.js, main: main.js, post: post.js}\n"


def phases(word: str, **more: str) -> dict[str, str]:
    return {"action.yml": PHASES, **{f"{p}.js": more.get(p, f"echo {word}-{p}") for p in ("pre", "main", "post")}}


def job(*steps: str, before: str = "") -> str:
    listed = "".join(f"      - {step}\n" for step in steps)
    return f"on: push\n{before}jobs:\n  build:\n    runs-on: base\n    steps:\n{listed}"


def composite(*steps: str, inputs: str = "{}", outputs: str = "{}") -> dict[str, str]:
    listed = "".join(f"    - {step}\n" for step in steps)
    text = (
        f"name: C\ndescription: x\ninputs: {inputs}\noutputs: {outputs}\nruns:\n  using: composite\n  steps:\n{listed}"
    )
    return {"action.yml": text}


def said(told):
    return [line for line in told.lines() if not line.startswith("Download action")]


# --- phases ---


async def test_all_pres_before_the_first_step_and_posts_in_reverse(bed):
    bed.actions.add("octo/a@v1", phases("a"))
    bed.actions.add("octo/b@v1", phases("b"))
    told = await bed.run(job("run: echo first", "uses: octo/a@v1", "name: B\n        uses: octo/b@v1"))
    assert said(told) == ["a-pre", "b-pre", "first", "a-main", "b-main", "b-post", "a-post"]
    [started] = [event for event in told.events if isinstance(event, JobStarted)]
    assert started.steps == ("Pre Run octo/a@v1", "Pre B", "Run echo first", "Run octo/a@v1", "B")
    names = [(event.step, event.name) for event in told.events if isinstance(event, StepStarted)]
    assert names == [*enumerate(started.steps), (5, "Post B"), (6, "Post Run octo/a@v1")]
    assert told.result.conclusion == "success"


async def test_a_main_that_fails_has_its_post_and_one_that_did_not_run_has_none(bed):
    bed.actions.add("octo/a@v1", {**phases("a", main="exit 1"), "action.yml": PHASES.replace("pre: pre.js, ", "")})
    bed.actions.add("octo/b@v1", {**phases("b"), "action.yml": PHASES.replace("pre: pre.js, ", "")})
    told = await bed.run(job("uses: octo/a@v1", "uses: octo/b@v1"))
    assert told.steps() == ["failure", "skipped", "success"]
    assert said(told) == ["a-post"]
    [exit_code] = [event.exit_code for event in told.events if isinstance(event, StepFinished) and event.exit_code]
    assert exit_code == 1


async def test_a_pre_that_ran_has_its_post_though_its_main_did_not_run(bed):
    bed.actions.add("octo/a@v1", phases("a", pre="exit 3"))
    told = await bed.run(job("uses: octo/a@v1"))
    assert told.steps() == ["failure", "skipped", "success"]
    assert said(told)[-1] == "a-post"
    assert told.result.conclusion == "failure"


async def test_conditions_of_pre_and_post(bed):
    text = PHASES.replace("post: post.js", "post: post.js, pre-if: 'false', post-if: failure()")
    bed.actions.add("octo/a@v1", {**phases("a"), "action.yml": text})
    told = await bed.run(job("uses: octo/a@v1"))
    assert said(told) == ["a-main"]
    last = [event for event in told.events if isinstance(event, StepFinished)][-1]
    assert (last.conclusion.value, last.name) == ("skipped", "Post Run octo/a@v1")
    told = await bed.run(job("uses: octo/a@v1", "run: exit 1"))
    assert said(told)[-1] == "a-post"


async def test_state_is_for_the_later_phases_of_the_same_step(bed):
    files = phases(
        "a",
        pre="echo ::save-state name=one::1",
        main="show STATE_one\necho two=2 >> $GITHUB_STATE\necho out=x >> $GITHUB_OUTPUT",
        post="show STATE_one\nshow STATE_two\nshow INPUT_NAME",
    )
    text = PHASES.replace("runs:", "inputs: {name: {default: '${{ github.job }}'}}\nruns:")
    bed.actions.add("octo/a@v1", {**files, "action.yml": text})
    told = await bed.run(
        job("id: a\n        uses: octo/a@v1", "uses: octo/a@v1\n        with: {name: second}", "run: show STATE_one")
    )
    assert said(told) == [
        *("STATE_one=1", "STATE_one=1", "STATE_one is not set"),
        *("STATE_one=1", "STATE_two=2", "INPUT_NAME=second"),
        *("STATE_one=1", "STATE_two=2", "INPUT_NAME=build"),
    ]


# --- what a JavaScript action is given ---


async def test_inputs_become_variables_and_what_is_not_right_with_them_is_said(bed):
    text = JS.replace(
        "runs:",
        "inputs:\n  fetch-depth: {default: 1}\n  My Name: {required: true}\n  old: {deprecationMessage: use new}\n"
        "  where: {default: '${{ runner.os }}'}\nruns:",
    )
    show = "show INPUT_FETCH-DEPTH\nshow INPUT_MY_NAME\nshow INPUT_OLD\nshow INPUT_WHERE\nshow INPUT_EXTRA"
    bed.actions.add("octo/a@v1", {"action.yml": text, "main.js": show})
    told = await bed.run(job("uses: octo/a@v1\n        with: {FETCH-depth: 0, OLD: x, extra: y}"))
    valid = "['fetch-depth', 'My Name', 'old', 'where']"
    assert said(told) == [
        f"##[warning]Unexpected input(s) 'extra', valid inputs are {valid}",
        "##[warning]Input 'old' has been deprecated with message: use new",
        "##[warning]Input required and not supplied: My Name",
        *("INPUT_FETCH-DEPTH=0", "INPUT_MY_NAME=", "INPUT_OLD=x", "INPUT_WHERE=Linux", "INPUT_EXTRA=y"),
    ]
    assert [annotation.level for annotation in told.annotations()] == ["warning", "warning"]


async def test_the_environment_of_a_javascript_action(bed):
    names = ("GITHUB_ACTION", "GITHUB_ACTION_REPOSITORY", "GITHUB_ACTION_REF", "OF_JOB", "OF_STEP")
    bed.actions.add("octo/a@v1", {"sub/action.yml": JS.replace("main.js", "../main.js")})
    bed.actions.add("octo/a@v1", {"main.js": "\n".join(f"show {name}" for name in names) + "\npwd"})
    text = job("uses: octo/a/sub@v1\n        env: {OF_STEP: s}", before="env: {OF_JOB: j}\n")
    told = await bed.run(text)
    assert said(told) == [
        *("GITHUB_ACTION=__octo_a_sub", "GITHUB_ACTION_REPOSITORY=octo/a", "GITHUB_ACTION_REF=v1"),
        *("OF_JOB=j", "OF_STEP=s", "/home/runner/work/hello/hello"),
    ]
    assert b"bin" in bed.lender.guests[0].disk.directory(b"/opt/externals/node24").names


async def test_outputs_environment_and_path_of_an_action_are_for_the_steps_after_it(bed):
    main = (
        "echo x=1 >> $GITHUB_OUTPUT\necho ::set-output name=y::2\necho E=3 >> $GITHUB_ENV\necho /opt/x >> $GITHUB_PATH"
    )
    bed.actions.add("octo/a@v1", {"action.yml": JS, "main.js": main})
    told = await bed.run(
        job("id: a\n        uses: octo/a@v1", "run: echo ${{ steps.a.outputs.x }}${{ steps.a.outputs.y }} $E $PATH")
    )
    assert said(told)[0].startswith("12 3 /opt/x:")


async def test_a_machine_with_nodejs_is_asked_for_where_that_will_be_needed(bed):
    bed.actions.add("octo/js@v1", {"action.yml": JS, "main.js": ""})
    bed.actions.add("octo/script@v1", composite("run: echo\n      shell: bash"))
    source = bed.directory / "source"
    for name, files in {"js": {"action.yml": JS}, "a": composite("uses: ./b"), "b": composite("uses: ./js")}.items():
        (source / name).mkdir(parents=True)
        (source / name / "action.yml").write_text(files["action.yml"])
    needs = {
        "octo/js@v1": True,
        "octo/script@v1": False,
        "./js": True,
        "./a": True,
        "./none": False,
        "actions/upload-artifact@v4": False,
    }
    for uses in needs:
        await bed.run(job(f"if: false\n        uses: {uses}"))
    assert [node is not None for node in bed.lender.nodes] == list(needs.values())


async def test_the_commit_of_an_action_is_told_and_recorded(bed):
    bed.actions.add("octo/a@v1", {"action.yml": JS, "main.js": "", "b/action.yml": JS})
    told = await bed.run(job("uses: octo/a@v1", "uses: octo/a/b@v1"))
    [resolved] = [event for event in told.events if isinstance(event, ActionResolved)]
    assert (resolved.job, resolved.action, len(resolved.commit)) == ("build", "octo/a@v1", 40)
    assert f"Download action repository 'octo/a@v1' (SHA:{resolved.commit})" in told.lines(step=-1)
    assert bed.actions.fetched == ["octo/a@v1"]


# --- composite actions ---


async def test_inputs_steps_and_outputs_of_a_composite_action(bed):
    bed.local(
        "act",
        composite(
            "run: echo hello ${{ inputs.who }} ${{ inputs.WHERE }}\n      shell: bash",
            "id: made\n      run: echo value=${{ inputs.who }}-made >> $GITHUB_OUTPUT\n      shell: bash",
            "run: echo $GITHUB_ACTION_PATH ${{ github.action_path }} $GITHUB_ACTION\n      shell: bash",
            inputs="{who: {required: true}, where: {default: '${{ github.repository }}'}}",
            outputs="{result: {value: '${{ steps.made.outputs.value }}'}}",
        ),
    )
    told = await bed.run(
        job(
            "id: outer\n        uses: ./act\n        with: {who: World}",
            "run: echo ${{ steps.outer.outputs.result }} ${{ steps.made.outputs.value }}.",
        )
    )
    folder = "/home/runner/work/hello/hello/act"
    assert said(told) == ["hello World octo/hello", f"{folder} {folder} __run_2", "World-made ."]
    assert told.steps() == ["success", "success"]


async def test_the_environment_of_the_calling_step_comes_with_it(bed):
    bed.local(
        "outer",
        composite("uses: ./inner\n      env: {B: outer, C: '${{ env.A }}'}", "run: echo .$C.$D.\n      shell: bash"),
    )
    bed.local(
        "inner",
        composite(
            "env: {D: own}\n      run: echo $A $B $C $D ${{ env.B }}\n      shell: bash",
            "run: echo D=set >> $GITHUB_ENV\n      shell: bash",
        ),
    )
    told = await bed.run(job("uses: ./outer\n        env: {A: step, B: step}"))
    assert said(told) == ["step outer step own outer", "..set."]


async def test_failure_within_a_composite_action(bed):
    bed.local(
        "act",
        composite(
            "continue-on-error: true\n      id: shaky\n      run: exit 1\n      shell: bash",
            "run: echo ${{ steps.shaky.outcome }} ${{ steps.shaky.conclusion }}\n      shell: bash",
            "run: exit 7\n      shell: bash",
            "run: echo never\n      shell: bash",
            "if: failure()\n      run: echo inner failure, job ${{ job.status }}\n      shell: bash",
            outputs="{kept: {value: still}}",
        ),
    )
    told = await bed.run(
        job("id: act\n        uses: ./act", "if: failure()\n        run: echo ${{ steps.act.outputs.kept }}")
    )
    assert said(told) == [
        "##[error]Process completed with exit code 1.",
        "failure success",
        "##[error]Process completed with exit code 7.",
        "inner failure, job success",
        "still",
    ]
    assert told.steps() == ["failure", "success"]


async def test_a_composite_action_begins_with_a_status_of_its_own(bed):
    bed.local("act", composite("run: echo ${{ job.status }}\n      shell: bash"))
    told = await bed.run(job("run: exit 1", "if: failure()\n        uses: ./act"))
    assert said(told)[-1] == "failure"
    assert told.steps() == ["failure", "success"]


async def test_defaults_of_the_job_are_not_for_the_steps_of_an_action(bed):
    bed.local(
        "act", composite("run: pwd\n      shell: bash", "run: pwd\n      shell: sh\n      working-directory: act")
    )
    told = await bed.run(job("uses: ./act", before="defaults: {run: {working-directory: /tmp}}\n"))
    assert said(told) == ["/home/runner/work/hello/hello", "/home/runner/work/hello/hello/act"]


async def test_phases_of_actions_within_a_composite_action(bed):
    bed.actions.add("octo/a@v1", phases("a"))
    bed.actions.add("octo/b@v1", phases("b"))
    bed.actions.add(
        "octo/c@v1", composite("uses: octo/a@v1", "run: echo between\n      shell: bash", "uses: octo/b@v1")
    )
    told = await bed.run(job("run: echo first", "uses: octo/c@v1", "run: echo last"))
    assert said(told) == [
        *("a-pre", "b-pre", "first", "a-main", "between", "b-main", "last", "b-post", "a-post"),
    ]
    names = [event.name for event in told.events if isinstance(event, StepStarted)]
    assert names == [
        *("Pre Run octo/c@v1", "Run echo first", "Run octo/c@v1", "Run echo last", "Post Run octo/c@v1"),
    ]


async def test_an_action_of_the_workspace_has_no_pre_but_a_post(bed):
    bed.local("js", phases("js"))
    bed.local("act", composite("uses: ./js", "uses: octo/a@v1"))
    bed.actions.add("octo/a@v1", phases("a"))
    told = await bed.run(job("uses: ./act"))
    assert [line for line in said(told) if "pre" in line] == [
        "##[warning]`pre` execution is not supported for local action from './act'",
        "##[warning]`pre` execution is not supported for local action from './js'",
    ]
    assert [line for line in said(told) if "`" not in line] == ["js-main", "a-main", "a-post", "js-post"]
    assert bed.actions.fetched == ["octo/a@v1"]


async def test_native_actions_work_within_composite_actions_and_summaries_are_joined(bed):
    bed.local(
        "act",
        composite(
            "run: echo one >> $GITHUB_STEP_SUMMARY\n      shell: bash",
            "uses: actions/upload-artifact@v4\n      with: {path: none, if-no-files-found: error}\n      continue-on-error: true",
            "run: echo two >> $GITHUB_STEP_SUMMARY\n      shell: bash",
        ),
    )
    told = await bed.run(job("uses: ./act"))
    [finished] = [event for event in told.events if isinstance(event, StepFinished)]
    assert finished.summary == "one\ntwo\n"
    assert finished.conclusion == "success"
    assert "No files were found with the provided path" in said(told)[0]


async def test_secrets_are_not_for_the_expressions_of_an_action_but_reach_it_as_inputs(bed):
    bed.local("act", composite("run: echo ${{ inputs.token }}\n      shell: bash", inputs="{token: {}}"))
    told = await bed.run(
        job("uses: ./act\n        with: {token: '${{ secrets.TOKEN }}'}"), secrets={"TOKEN": "hunter2-long"}
    )
    assert said(told) == ["***"]
    bed.local("act", composite("run: echo ${{ secrets.TOKEN }}\n      shell: bash"))
    told = await bed.run(job("uses: ./act"), secrets={"TOKEN": "hunter2-long"})
    assert told.steps() == ["failure"]
    assert "Unrecognized named-value: 'secrets'" in said(told)[0]


# --- time and cancellation ---


async def test_the_time_of_a_step_is_that_of_all_steps_of_its_action(bed):
    bed.local("act", composite("run: wait\n      shell: bash", "if: always()\n      run: wait\n      shell: bash"))
    told = await bed.run(job("timeout-minutes: 0.003\n        uses: ./act"))
    assert told.steps() == ["failure"]
    assert said(told) == ["##[error]The action 'Run ./act' has timed out after 0.003 minutes."] * 2


async def test_a_cancelled_action_ends_and_is_cleaned_up(bed):
    bed.actions.add(
        "octo/a@v1", phases("a", main="echo ready\non-interrupt interrupted", post="show STATE_x\necho a-post")
    )
    bed.local("act", composite("uses: octo/a@v1", "run: echo never\n      shell: bash"))
    async with bed.live(job("uses: ./act", "run: echo never")) as run:
        events = []
        async for event in run.events():
            events.append(event)
            if isinstance(event, LogLine) and event.text == "ready":
                run.cancel(CancelCause.USER)
        assert (await run.result()).conclusion == "cancelled"
    texts = [event.text for event in events if isinstance(event, LogLine)]
    assert texts[-4:] == ["interrupted", "##[error]The operation was canceled.", "STATE_x is not set", "a-post"]
    ended = [event.conclusion.value for event in events if isinstance(event, StepFinished)]
    assert ended == ["cancelled", "skipped", "success"]


async def test_what_the_node_does_for_a_step_ends_with_it(bed):
    async def hang(action, say, held):
        bed.actions.fetched.append(str(action))
        await asyncio.Event().wait()

    bed.local("act", composite("uses: octo/slow@v1"))
    bed.actions.fetch = hang
    told = await bed.run(job("timeout-minutes: 0.003\n        uses: ./act"))
    assert said(told) == ["##[error]The action 'Run ./act' has timed out after 0.003 minutes."]
    async with bed.live(job("uses: ./act", "if: always()\n        run: echo last")) as run:
        ended = []
        async for event in run.events():
            if isinstance(event, StepStarted):
                run.cancel(CancelCause.USER)
            elif isinstance(event, StepFinished):
                ended.append(event.conclusion.value)
        assert (await run.result()).conclusion == "cancelled"
    assert ended == ["cancelled", "success"]
    assert bed.actions.fetched[0] == "octo/slow@v1"


# --- what cannot be ---


async def test_an_action_that_cannot_be_had_fails_the_job_before_it_has_a_machine(bed):
    told = await bed.run(job("run: echo never", "if: false\n        uses: octo/gone@v1"))
    assert told.result.jobs["build"].message == "cannot get the action 'octo/gone@v1': nobody has it. Make it."
    assert bed.lender.guests == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("./missing", "Can't find 'action.yml', 'action.yaml' or 'Dockerfile' under './missing'"),
        ("./docker", "docker/Dockerfile:1: FROM needs an image"),
        ("./../../../../etc", "cannot use './../../../../etc': it is not below the workspace"),
        ("./large", "cannot read ./large/action.yml: it has more than 512 KiB"),
        ("./folder", "Can't find 'action.yml'"),
        ("./broken", "./broken/action.yml (Line: 3, Col: 15)"),
    ],
)
async def test_what_is_no_action_fails_the_step(bed, path, reason):
    bed.local("docker", {"Dockerfile": "FROM"})
    bed.local("large", {"action.yml": "#" * (600 << 10)})
    bed.local("folder", {"action.yml/x": ""})
    bed.local("broken", {"action.yml": "name: X\ndescription: x\nruns: {using: perl, main: x}\n"})
    told = await bed.run(job(f"uses: {path}", "if: always()\n        run: echo on"))
    assert told.steps() == ["failure", "success"]
    assert reason in said(told)[0]


async def test_actions_within_themselves_have_an_end(bed):
    bed.local("again", composite("uses: ./again", "uses: ./again"))
    told = await bed.run(job("uses: ./again"))
    assert said(told) == ["##[error]Composite action depth exceeded max depth 9"]
    bed.actions.add("octo/loop@v1", composite("uses: octo/loop@v1"))
    told = await bed.run(job("uses: octo/loop@v1"))
    assert told.result.jobs["build"].message == "Composite action depth exceeded max depth 9"


async def test_nine_composite_actions_within_one_another_are_fine(bed):
    for number in range(8):
        bed.local(f"a{number}", composite(f"uses: ./a{number + 1}"))
    bed.local("a8", composite("run: echo deep\n      shell: bash"))
    assert said(await bed.run(job("uses: ./a0"))) == ["deep"]


async def test_actions_that_multiply_have_an_end(bed):
    for number in range(4):
        bed.actions.add(f"octo/a{number}@v1", composite(*[f"uses: octo/a{number + 1}@v1"] * 10))
    bed.actions.add("octo/a4@v1", {"action.yml": JS, "main.js": ""})
    told = await bed.run(job("uses: octo/a0@v1"))
    assert "more than 1000 times" in told.result.jobs["build"].message


async def test_the_steps_of_all_actions_have_an_end(bed):
    bed.local("many", composite(*["{run: x, shell: sh}"] * 6000))
    bed.local("twice", composite("uses: ./many\n      if: always()", "uses: ./many\n      if: always()"))
    bed.local("many2", composite("run: echo on\n      shell: bash"))
    told = await bed.run(job("uses: ./twice", "if: always()\n        uses: ./many2"))
    assert told.steps() == ["failure", "success"]
    assert said(told)[-2:] == ["##[error]the composite actions of the job have more than 10000 steps", "on"]


async def test_an_action_of_which_a_part_cannot_be_had_stays_so(bed):
    bed.actions.add("octo/a@v1", composite("uses: octo/gone@v1"))
    bed.local("act", composite("uses: octo/a@v1"))
    told = await bed.run(job("uses: ./act", "if: always()\n        uses: ./act"))
    assert told.steps() == ["failure", "failure"]
    assert said(told) == ["##[error]cannot get the action 'octo/gone@v1': nobody has it. Make it."] * 2


async def test_commits_are_told_in_the_order_of_the_steps_and_so_is_a_failure(bed):
    for name in "abcdef":
        bed.actions.add(f"octo/{name}@v1", {"action.yml": JS, "main.js": ""})
    told = await bed.run(job(*[f"uses: octo/{name}@v1" for name in "fedcba"]))
    resolved = [event.action for event in told.events if isinstance(event, ActionResolved)]
    assert resolved == [f"octo/{name}@v1" for name in "fedcba"]
    told = await bed.run(job("uses: octo/a@v1", "uses: octo/gone@v1", "uses: octo/away@v1"))
    assert "octo/gone@v1" in told.result.jobs["build"].message


async def test_what_a_node_does_not_allow(bed):
    bed.settings = type(bed.settings)(actions_allow=("octo/*", "other/one@v1"), actions_pinned=False)
    for name in ("octo/a@v2", "other/one@v1", "other/one@v2"):
        bed.actions.add(name, {"action.yml": JS, "main.js": "echo ran"})
    assert said(await bed.run(job("uses: Octo/a@v2".replace("O", "o"), "uses: other/one@v1"))) == ["ran", "ran"]
    told = await bed.run(job("uses: other/one@v2"))
    assert "the action 'other/one@v2' is not allowed on this node" in told.result.jobs["build"].message
    bed.settings = type(bed.settings)(actions_pinned=True)
    told = await bed.run(job("uses: octo/a@v2"))
    assert "is not pinned to a full-length commit SHA" in told.result.jobs["build"].message


async def test_what_an_action_keeps_is_bounded(bed):
    bed.actions.add("octo/a@v1", phases("a", main="fill 3 500000 S >> $GITHUB_STATE"))
    told = await bed.run(job("uses: octo/a@v1"))
    assert told.steps() == ["success", "failure", "success"]
    assert "Unable to process file command 'state' successfully." in said(told)[1]


async def test_a_machine_that_cannot_run_nodejs_is_said_to_need_another_image(bed):
    del bed.lender.programs["/opt/externals/node24/bin/node"]
    bed.local("js", phases("js"))
    told = await bed.run(job("uses: ./js"))
    assert any("cannot start Node.js in this machine. It needs an image with glibc 2.28" in line for line in said(told))


async def test_a_step_with_more_variables_than_a_machine_takes_fails_alone(bed):
    told = await bed.run(
        job("run: fill 2 50000 S >> $GITHUB_ENV", "run: echo never", "if: always()\n        uses: ./missing")
    )
    assert told.steps() == ["success", "failure", "failure"]
    assert "cannot send a message of" in said(told)[0]


@pytest.mark.parametrize("path", ["./a\\0b", "./" + "x" * 300, "./" + "d/" * 3000])
async def test_an_action_whose_path_no_file_can_have_fails_its_step_alone(bed, path):
    told = await bed.run(job("run: echo first", f'uses: "{path}"'))
    assert told.steps() == ["success", "failure"]
    assert "mistake of its own" not in told.result.jobs["build"].message


async def test_the_defaults_of_an_action_make_no_more_together_than_is_bounded(bed):
    much = "${{ format('" + "{0}" * 450 + "', github.event.s) }}"
    inputs = "".join(f'  i{number}: {{default: "{much}"}}\n' for number in range(20))
    text = f"name: a\ndescription: a\ninputs:\n{inputs}runs: {{using: composite, steps: [{{run: echo ran, shell: bash}}]}}\n"
    bed.actions.add("octo/a@v1", {"action.yml": text})
    told = await bed.run(job("uses: octo/a@v1"), source={"event": {"s": "x" * 10_000}})
    assert told.steps() == ["failure"]
    assert any("maximum allowed memory size" in line for line in said(told))
