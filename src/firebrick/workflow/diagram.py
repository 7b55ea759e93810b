"""The needs of a workflow's jobs as an SVG picture, which shows itself light or dark as its reader likes it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from html import escape

from firebrick.workflow.expression.expression import EvaluationError, Scope
from firebrick.workflow.layout import Box, Layout, Line, lay_out
from firebrick.workflow.matrix import expand_matrix, tree_value
from firebrick.workflow.problem import printable
from firebrick.workflow.syntax import Job, Workflow
from firebrick.workflow.template import tree_templates

_MARGIN = 20
_PADDING = 14
_CHARACTER = 8.3
_SMALL = 6.6
_ONE_LINE, _TWO_LINES = 38, 56
_MIN_WIDTH = 90
_MAX_CHARACTERS = 36

_STYLE = """
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; } .box { fill: #f6f8fa; stroke: #8c959f; } .line { fill: none; stroke: #8c959f; stroke-width: 1.5; }
  .sometimes { stroke-dasharray: 5 4; } .tip { fill: #8c959f; }
  text { font: 600 13px system-ui, sans-serif; fill: #1f2328; } .small { font: 11px system-ui, sans-serif; fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } .box { fill: #161b22; stroke: #6e7681; } .line { stroke: #6e7681; } .tip { fill: #6e7681; }
    text { fill: #e6edf3; } .small { fill: #9198a1; }
  }
"""


def draw(workflow: Workflow) -> str:
    """The picture, as the text of an SVG file. A job with a condition of its own has a dashed frame; a matrix says how many jobs it makes where
    that is known."""
    captions = {name: (_title(job), _note(job)) for name, job in workflow.jobs.items()}
    layout = lay_out(
        {name: _size(title, note) for name, (title, note) in captions.items()},
        {name: job.needs for name, job in workflow.jobs.items()},
    )
    return "\n".join(_document(workflow, captions, layout)) + "\n"


def _document(workflow: Workflow, captions: dict[str, tuple[str, str]], layout: Layout) -> Iterator[str]:
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    yield f"<title>{_escaped(workflow.name)}</title>"
    yield f"<style>{_STYLE}</style>"
    yield '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
    yield '<rect class="ground" width="100%" height="100%"/>'
    yield f'<g transform="translate({_MARGIN} {_MARGIN})">'
    for line in layout.lines:
        yield f'<path class="line" marker-end="url(#tip)" d="{_path(line)}"/>'
    for name, box in layout.boxes.items():
        yield from _box(workflow.jobs[name], *captions[name], box)
    yield "</g>"
    yield "</svg>"


def _box(job: Job, title: str, note: str, box: Box) -> Iterator[str]:
    frame = "box sometimes" if job.if_.raw else "box"
    tip = f"{job.id}: {title}" + (f"\nif: {job.if_.raw}" if job.if_.raw else "")
    yield f"<g><title>{_escaped(tip)}</title>"
    yield f'<rect class="{frame}" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>'
    x, y = box.x + _PADDING, box.middle + (-3 if note else 4.5)
    yield f'<text x="{x:.1f}" y="{y:.1f}">{_escaped(_short(title))}</text>'
    if note:
        yield f'<text class="small" x="{x:.1f}" y="{y + 16:.1f}">{_escaped(_short(note))}</text>'
    yield "</g>"


def _path(line: Line) -> str:
    """Curves between columns, straight where the line passes one."""
    first, *between, last = line.places
    x, y = first.x + first.width, first.middle
    path = f"M{x:.1f} {y:.1f}"
    for place in (*between, last):
        bend = (place.x - x) / 2
        path += f"C{x + bend:.1f} {y:.1f} {place.x - bend:.1f} {place.middle:.1f} {place.x:.1f} {place.middle:.1f}"
        x, y = place.x + place.width, place.middle
        if place is not last:
            path += f"H{x:.1f}"
    return path


def _title(job: Job) -> str:
    return job.name.raw if job.name is not None and job.name.is_literal and job.name.raw.strip() else job.id


def _note(job: Job) -> str:
    if job.call is not None:
        return f"calls {job.call.uses}"
    strategy = job.strategy
    if strategy is None or (strategy.matrix is None and strategy.expression is None):
        return ""
    if strategy.matrix is None or not all(template.is_literal for template in tree_templates(strategy.matrix)):
        return "a matrix"
    try:
        count = len(expand_matrix(tree_value(strategy.matrix, Scope())))
    except EvaluationError:
        return "a matrix"
    return f"{count} jobs" if count > 1 else "1 job"


def _size(title: str, note: str) -> tuple[float, float]:
    width = max(_width(_short(title), _CHARACTER), _width(_short(note), _SMALL), _MIN_WIDTH - 2 * _PADDING)
    return width + 2 * _PADDING, _TWO_LINES if note else _ONE_LINE


def _width(text: str, character: float) -> float:
    """About: nobody here knows the fonts of the reader."""
    return sum(character * (1.8 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _escaped(text: str) -> str:
    return escape("\n".join(printable(line) for line in text.split("\n")), quote=True)
