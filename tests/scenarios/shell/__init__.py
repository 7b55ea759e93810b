"""A small shell for guests that are doubles: bash and dash as far as the scenarios use them, where the two agree.

What it does it does as they do: the scenarios with the marker `machine` run in real shells too, and must say the same. What it does not know it
refuses: with a word in `complaints`, which a test asserts to be empty, and with status 125.
"""

from tests.scenarios.shell.interpreter import shell_programs

__all__ = ["shell_programs"]
