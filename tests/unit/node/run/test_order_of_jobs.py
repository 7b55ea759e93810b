"""Graphs made up by chance: a job begins when all it needs has ended, whatever it becomes."""

import random

import pytest

from firebrick.node.event import JobFinished, JobsPlanned, JobStarted


def graph(chance):
    """Jobs with needs among those before them; some open, some with a matrix, some that fail."""
    jobs, text = {}, "on: push\njobs:\n"
    for number in range(chance.randint(3, 8)):
        needs = [other for other in jobs if chance.random() < 0.4]
        kind = chance.choice(["plain", "matrix", "open" if needs else "plain"])
        jobs[f"j{number}"] = needs
        text += f"  j{number}:\n    runs-on: base\n    if: always()\n"
        text += f"    needs: [{', '.join(needs)}]\n" if needs else ""
        text += "    outputs: {v: '${{ steps.s.outputs.v }}'}\n"
        if kind == "matrix":
            text += "    strategy: {fail-fast: false, max-parallel: 2, matrix: {v: [1, 2, 3]}}\n"
        if kind == "open":
            text += f"    strategy: {{fail-fast: false, matrix: {{v: '${{{{ fromJSON(needs.{needs[0]}.outputs.v) }}}}'}}}}\n"
        text += "    steps: [{id: s, run: 'echo v=[1,2] >> $GITHUB_OUTPUT'}"
        text += ", {run: exit 1}]\n" if chance.random() < 0.2 else "]\n"
    return jobs, text


@pytest.mark.parametrize("seed", range(12))
async def test_needs_have_ended_before_a_job_begins(bed, seed):
    jobs, text = graph(random.Random(seed))
    told = await bed.run(text)
    ended, began = {}, {}
    for place, event in enumerate(told.events):
        if isinstance(event, JobFinished):
            ended[event.job] = place
        if isinstance(event, JobStarted):
            began[event.job] = place
    assert began.keys() == ended.keys() == told.result.jobs.keys()
    copies = {job: [key for key in began if key == job or key.startswith(f"{job}.")] for job in jobs}
    for job, needs in jobs.items():
        assert copies[job]
        for need in needs:
            assert max(ended[key] for key in copies[need]) < min(began[key] for key in copies[job])
    for event in told.events:
        if isinstance(event, JobsPlanned):
            assert list(event.jobs) == sorted(copies[event.job])
