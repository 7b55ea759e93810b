"""`python -m tests.e2e.results_process DIRECTORY`: the services as a process, which a test can kill. Says its socket, then serves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from firebrick.results.limits import ResultsLimits
from firebrick.results.serve import open_results


async def main(directory: str) -> None:
    async with open_results(Path(directory), ResultsLimits(free_mib=1)) as results:
        print(results.socket, flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
