"""python -m bench.lab [GROUP...]: measure here, which is the lab. A row is a line of JSON on standard output; what goes on is said on standard error."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.lab.calls import overhead
from bench.lab.network import throughput
from bench.lab.place import Place, made, say
from bench.lab.restores import first_outputs, many, restored
from bench.lab.snapshots import snapshots
from bench.row import Row
from firebrick.machine.firecracker.config import API_SOCKET
from lab.ground import Ground


async def _calls(place: Place) -> list[Row]:
    async with restored(place, place.plain, place.open) as machine:
        socket = machine.directory / API_SOCKET
        # Python on an emulated processor says nothing of a real one: the row that is measured outside has the limit.
        return [await overhead("driver overhead of an API call, emulated", socket, limit=None)]


_GROUPS: Final[dict[str, Callable[[Place], Awaitable[list[Row]]]]] = {
    "first": first_outputs,
    "snapshots": snapshots,
    "calls": _calls,
    "many": many,
    "network": throughput,
}


async def main(asked: Sequence[str]) -> None:
    async with made(Ground.find()) as place:
        say("two snapshots are taken")
        for name, measure in _GROUPS.items():
            if not asked or name in asked:
                for row in await measure(place):
                    sys.stdout.write(json.dumps(dataclasses.asdict(row)) + "\n")
                    sys.stdout.flush()
                say(f"measured: {name}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
