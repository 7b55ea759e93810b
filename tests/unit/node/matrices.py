"""A matrix with a common part, and what of its run must be the same however its machines came to be."""

from __future__ import annotations

from firebrick.node.event import Annotation, LogLine, StepFinished, StepStarted

MARK = "- {run: 'true', env: {FIREBRICK_FORK: matrix}}"


def flow(mark, *, common="run: echo common", strategy="", own="echo ${{ matrix.word }}"):
    return f"""
    on: push
    env: {{A: workflow}}
    jobs:
      build:
        runs-on: base
        strategy: {{matrix: {{word: [clay, sand, lime]}}, {strategy}}}
        outputs: {{seen: '${{{{ steps.own.outputs.seen }}}}'}}
        steps:
          - id: setup
            run: |
              echo kiln >> file
              echo temperature=900 >> $GITHUB_OUTPUT
              echo ADDED=soot >> $GITHUB_ENV
              echo /opt/kiln >> $GITHUB_PATH
              echo ::add-mask::ash-and-embers
              echo ::warning file=a.c,line=3::ash-and-embers is hot
              echo summary >> $GITHUB_STEP_SUMMARY
          - {common}
          {mark}
          - id: own
            run: |
              echo $A $ADDED ash-and-embers ${{{{ steps.setup.outputs.temperature }}}} ${{{{ hashFiles('file') }}}}
              echo ${{{{ matrix.word }}}} >> file
              echo seen=${{{{ matrix.word }}}} >> $GITHUB_OUTPUT
              {own}
          - if: always()
            run: echo ${{{{ job.status }}}} ${{{{ hashFiles('file') }}}} $PATH
    """


def run_of(told):
    """All that is the same however machines came to be: events but for their times and the node's own words, and the results."""
    events = {}
    for event in told.events:
        match event:
            case LogLine(stream="stdout"):
                found = (event.step, "line", event.text)
            case Annotation():
                found = (event.step, "annotation", event.level, event.message, event.file, event.line)
            case StepStarted():
                found = (event.step, "started", event.name)
            case StepFinished():
                found = (event.step, "finished", event.conclusion.value, event.exit_code, event.summary)
            case _:
                continue
        events.setdefault(event.job, []).append(found)
    return events, told.jobs(), {name: job.outputs for name, job in told.result.jobs.items()}, told.result.conclusion


def without(text):
    return text.replace("FIREBRICK_FORK: matrix", "NOTHING: much")
